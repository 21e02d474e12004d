"""Run by test_gpu.py in a process of its own: `spaces` as on a ZeroGPU Space, its scheduler and the GPU itself replaced.

Prints, as JSON, what was borrowed and what came through the process that has the GPU.
"""

import json
import multiprocessing
import os
import sys
import tempfile
import types
from pathlib import Path

os.environ |= {"SPACES_ZERO_GPU": "1", "SPACES_ZERO_DEVICE_API_URL": "http://127.0.0.1:9", "UNNOISE_DATA": tempfile.mkdtemp()}
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

sys.modules["torch"] = None  # spaces replaces parts of a torch that knows CUDA, and does nothing where there is no torch
import gradio  # noqa: E402
from spaces.zero import client  # noqa: E402

del sys.modules["torch"]
borrowed, loaded = [], []


def schedule(task_id, request, duration, gpu_size):
    borrowed.append(duration.total_seconds())
    loaded.append(models.loaded("emoji-ldm"))
    if duration.total_seconds() == 120:
        raise gradio.Error("You have exceeded your GPU quota (<a href='x'>120s requested</a>).")
    return types.SimpleNamespace(allowToken="t", nvidiaIndex=0, nvidiaUUID="u", idle=False)


client.schedule, client.get_duration_seconds = schedule, lambda duration, _: duration.total_seconds()
client.allow = client.release = lambda *_, **__: None

from test_jobs import Source, asked  # noqa: E402

import backends  # noqa: E402
from backends import estimates, jobs, models, recipe  # noqa: E402
from backends.spec import Outcome  # noqa: E402

source = Source(open_=True)


def run(given, pictures, stop, hold):
    for event in source(given, pictures, stop, hold):
        yield event
        if event.event.__class__.__name__ == "Step" and given["job"]["prompt"] == "stop me":
            stop.turn(True)  # as a press on Stop does, from another process


backends.run = run
studio = jobs.studio()
said = []
for prompt, steps in (("a cat", 30), ("a cat", 30), ("stop me", 50), ("too long", 100)):
    if borrowed:
        _, given, _ = recipe.whole(asked(prompt, steps))
        estimates.learn(studio.store, given, given["arms"][0], {}, 20.0 if steps < 100 else 900.0)
    one = studio.submit(asked(prompt, steps), {}, "me")
    with studio.watch(one) as feed:
        events = [e.event for e in feed]
    said.append([one.state, one.error, sum(isinstance(e, Outcome) for e in events), source.ran])
print(json.dumps({"borrowed": borrowed, "said": said, "loaded": loaded, "children": len(multiprocessing.active_children())}), flush=True)
for child in multiprocessing.active_children():
    child.kill()
os._exit(0)
