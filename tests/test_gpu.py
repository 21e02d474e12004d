"""The ZeroGPU decorator."""

import sys
import types

from backends import gpu


def test_no_op_without_spaces():
    def handler(recipe):
        yield recipe

    assert gpu.on_gpu(handler) is handler


def test_borrows_for_as_long_as_the_recipe_needs(monkeypatch):
    spaces = types.ModuleType("spaces")
    spaces.GPU = lambda duration: lambda f: (f, duration)
    spaces.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "spaces", spaces)
    handler, duration = gpu.on_gpu(len)
    assert handler is len
    one = duration({"arms": [{"method": "ddim", "knobs": {"steps": 30}}]})
    assert 10 < one == duration({"arms": [{"method": "ddim", "knobs": {"steps": 30}}]}, "x") < duration({"arms": [{}, {}]}) <= gpu.LONGEST
    assert duration("nonsense") == duration(None) > 0
