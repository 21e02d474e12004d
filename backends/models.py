"""The cards: which models there are, what each can do, how it is loaded. One bounded cache."""

import contextlib
import errno
import gc
import importlib
import json
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.lazy import torch
from backends.spec import BadInput, Method

ASSETS = Path(__file__).resolve().parents[1] / "assets" / "models"
KEPT = 2  # models held in memory at once


@dataclass(frozen=True)
class Card:
    """A model that can be chosen. `loader` and `previewer` are "module:function"; figures are measured."""

    name: str
    title: str
    loader: str
    capabilities: frozenset[str]
    licence: str
    source: str  # folder under assets/models, or the hub's repository
    revision: str = "1"
    side: int = 128  # px
    factor: int = 8  # pixels a latent cell
    parameters: str = ""
    trained_on: str = ""
    command: str = ""
    about: str = ""
    previews: str = "backends.denoiser:linear_previewer"
    embedded: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    def previewer(self, model):
        return resolve(self.previews)(model)

    @property
    def network(self) -> str:
        """diffusers' name of the denoiser, which is its folder's too."""
        return "transformer" if "dit" in self.capabilities else "unet"

    @property
    def figures(self) -> dict:
        """Measured quality, written by the evaluation script beside the weights."""
        path = ASSETS / self.source / "figures.json"
        return json.loads(path.read_text()) if self.embedded and path.exists() else {}


CARDS: dict[str, Card] = {}
_cache: OrderedDict[str, Any] = OrderedDict()
BROUGHT = re.compile(r"[a-z]+-[0-9a-f]{12}")  # the name of a visitor's card: its kind and twelve digits of its content's hash
_lock = threading.Lock()
_loading: dict[str, threading.Lock] = {}
_brought: dict[str, Card] = {}  # visitors' own
log = logging.getLogger(__name__)
progress: dict[str, str] = {}  # name of a card that is being fetched -> a sentence on how far it is


def add(*cards: Card) -> None:
    for card in cards:
        if card.name in CARDS:
            raise ValueError(f"two cards are called {card.name}")
        CARDS[card.name] = card


def resolve(path: str) -> Callable:
    """The function that "module:function" names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


@contextlib.contextmanager
def uncounted(model):
    """What a model evaluates for the eye alone adds nothing to its `nfe`."""
    nfe = model.nfe
    try:
        yield
    finally:
        model.nfe = nfe


def bring(card: Card) -> None:
    """Take a visitor's card. It is found by its name, which tells its content, and is listed for nobody."""
    with _lock:
        _brought[card.name] = card


def forget(name: str) -> None:
    """Let go of a visitor's card, and of its model where it is loaded."""
    with _lock:
        for held in (_brought, _cache, _loading):
            held.pop(name, None)


def brought(names: Iterable[str] | None = None) -> list[Card]:
    """Those of the visitors' cards, or of `names`, that are still here."""
    with _lock:
        return [_brought[name] for name in (list(_brought) if names is None else names) if name in _brought]


def get(name: str) -> Card:
    """The card of that name; raises BadInput."""
    if name not in CARDS and (mine := brought([name])):
        return mine[0]
    if name not in CARDS and BROUGHT.fullmatch(name):
        raise BadInput(f"{name} is a model that a visitor brought and is not here (any more); bring its zip again, then open or run this anew.")
    if name not in CARDS:
        raise BadInput(f"No model is called {name}; there are {', '.join(CARDS)}.")
    return CARDS[name]


def load(name: str):
    """The loaded model, from the cache when it is there. The least recently used one makes room. Raises BadInput when it can't be read.

    A download can take long; others may load their models meanwhile.
    """
    card = get(name)
    with _lock:
        mine = _loading.setdefault(name, threading.Lock())
    with mine:
        with _lock:
            if name in _cache:
                _cache.move_to_end(name)
                return _cache[name]
            while len(_cache) >= KEPT:
                _cache.popitem(last=False)
        try:
            with torch.no_grad():
                model = resolve(card.loader)(card)
        except BadInput:
            raise
        except Exception as error:  # a file that is cut off or another's is told in as many ways as there are readers
            log.exception("%s could not be loaded", card.name)
            raise _unread(card, error) from None
        with _lock:
            _cache[name] = model
        return model


def _unread(card: Card, error: Exception) -> BadInput:
    if lack := want(error):
        return BadInput(f"{card.title} could not be loaded: {lack}")
    if isinstance(error, ImportError):
        return BadInput(
            f"{card.title} could not be loaded, as a package is missing ({error.name or error}); the host should install what requirements.txt names."
        )
    mend = f"the host should restore assets/models/{card.source} from the repository" if card.embedded else "delete its folder in the cache and load it again"
    return BadInput(f"The files of {card.title} can't be read ({type(error).__name__}); {mend}. Until then choose another model.")


def whole(kind, folder: Path, **options):
    """kind.from_pretrained(folder, …); raises ValueError where the file lacks some of the network's weights, which would be drawn at random."""
    net, found = kind.from_pretrained(folder, output_loading_info=True, **options)
    if missing := sorted(found["missing_keys"]):
        raise ValueError(f"{folder} lacks {len(missing)} weights, such as {missing[0]}")
    return net


def full(error: BaseException | None) -> bool:
    """Whether a disk, or one's share of it, had no room."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def want(error: BaseException) -> str:
    """What the machine was short of, as a sentence that says what to do; "" where the error is another."""
    said = str(error).lower()
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "out of memory" in said or "allocate memory" in said or "not enough memory" in said:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return "there was not enough memory. Choose a smaller model, smaller inputs or fewer steps, or try again later."
    if full(error):
        return "the disk is full. Try again once the host has made room."
    return ""


def loaded(name: str) -> bool:
    with _lock:
        return name in _cache


def clear() -> None:
    with _lock:
        _cache.clear()


def require(model, method: Method, pieces: list[Method]) -> None:
    """Raise BadInput when a method or a piece needs what the model can't do."""
    for needed in (method, *pieces):
        if missing := needed.needs - model.card.capabilities:
            fit = [c.title for c in CARDS.values() if needed.needs <= c.capabilities]
            raise BadInput(
                f"{needed.title} needs {', '.join(sorted(missing))}, which {model.card.title} lacks; choose {' or '.join(fit[:3]) or 'another model'}."
            )


def cards_for(method: Method) -> list[Card]:
    return [c for c in CARDS.values() if method.needs <= c.capabilities]


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


from backends import cards as _cards  # noqa: E402,F401  the list itself, kept apart from the machinery
