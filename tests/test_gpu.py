"""ZeroGPU's decorator: nothing elsewhere; on such a Space, GPU time by the knobs and by what was learned, and a run that happens in another process."""

import json
import subprocess
import sys
from pathlib import Path

from backends import gpu, jobs


def handler(recipe):
    yield recipe


def test_no_op_outside_of_a_zero_gpu_space():
    assert gpu.on_gpu(handler, gpu.seconds, handler) is handler
    assert jobs.here is jobs.local


def test_borrows_for_as_long_as_the_knobs_ask_until_the_like_of_it_has_run():
    one = gpu.seconds({"arms": [{"method": "ddim", "knobs": {"steps": 30}}]})
    assert gpu.SHORTEST < one < gpu.seconds({"arms": [{}, {}]}) <= gpu.LONGEST
    assert gpu.seconds({"arms": [{"method": "ddim", "knobs": {"steps": 30}}]}, 10.0) == 25
    assert gpu.seconds({}, 0.01) == gpu.SHORTEST and gpu.seconds({}, 1e6) == gpu.LONGEST


def test_on_a_zero_gpu_space_runs_borrow_stop_and_are_refused():
    """spaces itself with a scheduler that is made up: the run is forked, its events are pickled, Stop crosses the processes."""
    ran = subprocess.run([sys.executable, Path(__file__).with_name("zero_gpu.py")], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    knobs, learned, longer, longest = found["borrowed"]
    assert all(found["loaded"]), "what is borrowed is not spent on loading"
    assert knobs == 20 and learned == 25 and longer > learned and longest == gpu.LONGEST
    done, again, stopped, refused = found["said"]
    assert done == again == ["done", "", 1, []], "nothing ran in the server's own process"
    assert stopped == ["stopped", "", 1, []] and found["children"] == 3
    assert refused == ["failed", "The Space's GPU: You have exceeded your GPU quota (120s requested).", 0, []]
