"""Getting a checkpoint from the hub: pinned, safetensors only, with progress, and with a sentence when it fails.

Only the files a pipeline needs are fetched. What is in the cache already is used without asking the hub.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backends.models import Card, full, progress, want
from backends.spec import BadInput

SECONDS = 5  # to wait for the hub's first answer
GB = 1e9
log = logging.getLogger(__name__)


def fetch(card: Card) -> Path:
    """The folder of the card's checkpoint, downloaded first when it is not in the cache; raises BadInput."""
    if Path(card.source).is_dir():  # a folder that the host named
        return Path(card.source)
    import huggingface_hub as hub

    what = dict(repo_id=card.source, revision=card.revision, allow_patterns=patterns(card),
                ignore_patterns=["*non_ema*"] if card.options.get("variant") else ["*non_ema*", "*.fp16*"])  # fmt: skip
    try:
        return Path(hub.snapshot_download(**what, local_files_only=True))
    except OSError:  # not there, or not whole
        pass
    if os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "True"):
        raise BadInput(f"{card.title} is not on this machine and the hub is switched off here (HF_HUB_OFFLINE); choose an embedded model.")
    size = check_size(card, what)
    progress[card.name] = f"Downloading {card.title} ({size / GB:.1f} GB)"
    try:
        return Path(hub.snapshot_download(**what, endpoint=endpoint(), tqdm_class=bar(card, size), etag_timeout=SECONDS))
    except Exception as error:
        raise refusal(card, error, began=True) from error
    finally:
        progress.pop(card.name, None)


@contextmanager
def reading(
    card: Card, *errors: type[Exception], doing: str = "Reading", mend: str = "delete its folder in the cache and load it again", other: str = "a smaller model"
) -> Iterator[None]:
    """While a checkpoint is read and placed: the page says so, and want of memory or one of `errors` becomes BadInput with what to do (`mend`) or choose."""
    progress[card.name] = f"{doing} {card.title}"
    try:
        yield
    except BadInput:
        raise
    except (MemoryError, RuntimeError, *errors) as error:
        if want(error):
            raise BadInput(f"There is not enough memory for {card.title}; choose {other}.") from None
        if not isinstance(error, errors):
            raise
        log.exception("%s could not be read", card.name)
        raise BadInput(f"The files of {card.title} can't be read ({type(error).__name__}); {mend}.") from error
    finally:
        progress.pop(card.name, None)


def endpoint() -> str | None:
    """Another hub or a mirror, where the host names one."""
    return os.environ.get("HF_ENDPOINT") or None


def patterns(card: Card) -> list[str]:
    """The parts of the repository that the pipeline needs, weights as safetensors of the card's variant only; or the files that the card names."""
    if "files" in card.options:  # published as a pickle; its reader must load it with weights_only
        return list(card.options["files"])
    weights = f"*.{card.options['variant']}*.safetensors" if card.options.get("variant") else "*.safetensors"
    kinds = (weights, "*.json", "*.txt", "*.model")
    if "parts" not in card.options:  # one network with its tokenizer, as transformers publishes it
        return [*kinds, "*.jinja"]
    return ["model_index.json", *(f"{part}/{kind}" for part in card.options["parts"] for kind in kinds)]


def check_size(card: Card, what: dict) -> int:
    """Bytes to download; one quick question, so that a hub out of reach is known within seconds."""
    import huggingface_hub as hub
    from huggingface_hub.utils import filter_repo_objects

    found: list = []

    def ask():
        try:
            found.append(hub.HfApi(endpoint=endpoint()).model_info(card.source, revision=card.revision, timeout=SECONDS, files_metadata=True))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=ask, daemon=True)  # a name server that does not answer knows no timeout
    thread.start()
    thread.join(SECONDS + 1)
    answer = found[0] if found else TimeoutError("no answer")
    if isinstance(answer, Exception):
        raise refusal(card, answer) from answer
    sizes = {s.rfilename: s.size or 0 for s in answer.siblings}
    total = sum(sizes[f] for f in filter_repo_objects(sizes, allow_patterns=what["allow_patterns"], ignore_patterns=what["ignore_patterns"]))
    home = Path(hub.constants.HF_HUB_CACHE)
    home.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(home).free) < total * 1.05:
        raise BadInput(f"{card.title} takes {total / GB:.1f} GB on disk and {free / GB:.1f} GB are free; make room or choose a smaller model.")
    return total


def refusal(card: Card, error: Exception, began: bool = False) -> BadInput:
    """The sentence for what went wrong at the hub; `began`: once it had answered."""
    name, status = type(error).__name__, getattr(getattr(error, "response", None), "status_code", None)
    if name == "GatedRepoError" or status in (401, 403):
        return BadInput(f"{card.title} asks for its licence to be accepted: do so on its page on the model hub, log in there with a token, and try again.")
    if name in ("RevisionNotFoundError", "RepositoryNotFoundError", "RemoteEntryNotFoundError") or status == 404:
        return BadInput(f"The model hub has no {card.source} at revision {card.revision[:12]}; the host can name another in UNNOISE_MODELS.")
    if any(map(full, (error, error.__cause__, error.__context__))):
        return BadInput(f"The disk is full; {card.title} could not be downloaded. Make room on it, or choose an embedded model.")
    if began:
        return BadInput(
            f"The download of {card.title} broke off ({name}); try again, and it goes on with the files that are there. Or choose an embedded model."
        )
    return BadInput(
        f"{card.title} must be downloaded first and the model hub can't be reached from here; choose an embedded model, or try again with a network."
    )


def bar(card: Card, total: int):
    """A tqdm class that prints nothing and writes how far the download is into `progress`."""
    from tqdm.auto import tqdm

    class Bar(tqdm):
        furthest = 0  # of the bars that count bytes: the hub's library shows one for the network, one for the disk

        def __init__(self, *args, **kwargs):
            kwargs.pop("name", None)
            self.bytes, self.done = kwargs.get("unit") == "B", kwargs.get("initial") or 0
            super().__init__(*args, **kwargs | {"disable": True})

        def update(self, n=1):
            self.done += n or 0
            if self.bytes and self.done > Bar.furthest:
                Bar.furthest = self.done
                progress[card.name] = f"Downloading {card.title}: {min(self.done, total) / GB:.1f} of {total / GB:.1f} GB"

    return Bar
