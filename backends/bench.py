"""Speed, as ratios measured in one run: `make bench`.

Our loop against diffusers' own StableDiffusionPipeline on the same components, with and without previews;
adaptive guidance and faster_diffusion against plain guidance; start-up; the page's size; a run's memory.
Each ratio is the median over rounds in which both sides take turns, so that a busy machine hurts both.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

PROMPT, STEPS, SCALE = "a cat next to a cactus on a yellow background", 25, 5.0


def ours(arm: dict, previews: bool) -> tuple[float, "object"]:
    """(wall seconds, outcome) of one arm; `previews`: decode one at every step as the page does."""
    from backends import run, runner
    from backends.spec import Result

    runner.PREVIEW_SECONDS = 0.0 if previews else 1e9
    begin = time.perf_counter()
    for event in run({"task": "text_to_image", "job": {"prompt": PROMPT}, "arms": [arm]}):
        if isinstance(event.event, Result):  # the task's metrics, which follow, are no part of sampling
            wall = time.perf_counter() - begin
    return (wall if previews else event.event.seconds), event.event


def pipeline():
    """diffusers' StableDiffusionPipeline around the embedded model's own parts, as a function of no arguments."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    from backends import models

    model = models.load("emoji-ldm")
    scheduler = DDIMScheduler.from_config(dict(model.scheduler.config) | {"timestep_spacing": "trailing", "clip_sample": False})
    pipe = StableDiffusionPipeline(model.vae, None, None, model.net, scheduler, None, None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.vae_scale_factor = model.card.factor
    cond, uncond = model.encode(PROMPT, "")

    def run():
        return pipe(prompt_embeds=cond.embeds, negative_prompt_embeds=uncond.embeds, latents=model.noise(0), height=128, width=128,
                    num_inference_steps=STEPS, guidance_scale=SCALE, output_type="np").images  # fmt: skip

    return run


def likeness(slug: str, knobs: dict) -> float:
    """PSNR in dB of a method's picture to plain guidance's, mean over four seeds."""
    from backends.metrics.image import psnr

    def drawn(method, seed):
        *_, last = run({"task": "text_to_image", "job": {"prompt": PROMPT, "seed": seed}, "arms": [{"method": method, "knobs": knobs}]})
        return last.event.value.pixels

    from backends import run

    return statistics.mean(psnr(drawn(slug, seed), drawn("ddim", seed)) for seed in range(4))


def timed(function) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def ratio(a, b, rounds: int) -> tuple[float, float, float]:
    """(median of a/b, median a, median b) over rounds in which each runs once; functions return seconds."""
    pairs = [(a(), b()) for _ in range(rounds)]
    return statistics.median(x / y for x, y in pairs), statistics.median(x for x, _ in pairs), statistics.median(y for _, y in pairs)


def page() -> tuple[float, float]:
    """(seconds until the first page is served, KiB of its configuration), by the studio started as a user would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begin = time.perf_counter()
    studio = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
                break
            except OSError:
                if studio.poll() is not None or time.perf_counter() - begin > 120:
                    raise SystemExit("the studio did not start") from None
                time.sleep(0.05)
        seconds = time.perf_counter() - begin
        return seconds, len(urllib.request.urlopen(f"http://127.0.0.1:{port}/config", timeout=20).read()) / 1024
    finally:
        studio.kill()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    knobs = {"steps": STEPS, "scale": SCALE}
    ddim = {"method": "ddim", "knobs": knobs}
    theirs = pipeline()
    theirs(), ours(ddim, True)  # warm up both
    report = {}
    for name, previews, bound in (("loop / diffusers pipeline", False, 1.05), ("loop with a preview at every step / pipeline", True, 1.10)):
        r, a, b = ratio(lambda p=previews: ours(ddim, p)[0], lambda: timed(theirs), rounds)
        report[name] = f"{r:.3f} (bound {bound}; {a:.2f} s, {b:.2f} s)"
    for slug in ("adaptive_guidance", "faster_diffusion"):
        r, a, b = ratio(lambda s=slug: ours({"method": s, "knobs": knobs}, False)[0], lambda: ours(ddim, False)[0], rounds)
        report[f"{slug} / plain guidance"] = f"{r:.3f} ({a:.2f} s, {b:.2f} s; {likeness(slug, knobs):.1f} dB to its picture)"
    outcome = ours(ddim, True)[1]
    report["25 guided steps"] = f"{outcome.seconds:.2f} s (bound 2.5), {outcome.nfe} NFE, {outcome.peak_mb:.0f} MB above the loaded model"
    seconds, size = page()
    report["first page"] = f"{seconds:.2f} s (bound 4)"
    report["page configuration"] = f"{size:.0f} KiB (bound 150)"
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
