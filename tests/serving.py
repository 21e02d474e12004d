"""The studio on a free port with a tiny random model, for the tests that go through HTTP."""

import dataclasses
import importlib.util
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
def studio(seconds: float = 0.0):
    """Gives the address. `seconds`: how long each evaluation of the network takes at least."""
    from ui import page

    model = _tiny()
    if seconds:
        model.net.register_forward_pre_hook(lambda *_: time.sleep(seconds))
    models.clear()
    models._cache["emoji-ldm"] = model
    models._cache["objects-ldm"] = _tiny("objects-ldm")
    app, url, _ = page.launch(port=None, prevent_thread_lock=True, quiet=True)
    try:
        yield url.rstrip("/")
    finally:
        app.blocks.close(verbose=False)
        models.clear()
