"""The studio on a free port with a tiny random model, for the tests that go through HTTP. As a program it is a studio that a test may end or kill:
python -m tests.serving FOLDER PORT SECONDS keeps its runs in the folder, and says every second of a run that it is there.
"""

import dataclasses
import importlib.util
import os
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from backends import models


def _tiny(name="emoji-ldm"):
    """conftest's model; two folders have a conftest, so it is taken by its path."""
    spec = importlib.util.spec_from_file_location("tests_conftest", Path(__file__).parent / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.tiny_denoiser(dataclasses.replace(models.get(name), previews="backends.denoiser:linear_previewer"))


@contextmanager
def studio(seconds: float = 0.0, port: int | None = None, folder: str = ""):
    """Gives the address. `seconds`: how long each evaluation of the network takes at least; `folder`: of its runs, else the tests' own."""
    from ui import page

    model = _tiny()
    if seconds:
        model.net.register_forward_pre_hook(lambda *_: time.sleep(seconds))
    models.clear()
    models._cache["emoji-ldm"] = model
    models._cache["objects-ldm"] = _tiny("objects-ldm")
    if folder:
        os.environ["UNNOISE_DATA"] = folder
    app, url, _ = page.launch(port=port, prevent_thread_lock=True, quiet=True)
    try:
        yield url.rstrip("/")
    finally:
        app.blocks.close(verbose=False)
        models.clear()


if __name__ == "__main__":
    from ui import running

    running.BEAT = 1.0  # before the page is made of it
    import app

    app.ends_well()
    with studio(float(sys.argv[3]), int(sys.argv[2]), sys.argv[1]):
        threading.Event().wait()
