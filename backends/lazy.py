"""Heavy modules that load when first used, so that the page is up before torch is needed.

`from backends.lazy import torch` gives a name that imports torch at its first attribute.
"""

import importlib


class Lazy:
    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str):
        return getattr(importlib.import_module(self._name), attribute)


torch = Lazy("torch")
F = Lazy("torch.nn.functional")
diffusers = Lazy("diffusers")
