"""A studio of its own under load, and killed in the middle of a run: what is lost, whose answers come, how long one waits, what the memory does.

    make load                                          100 visitors, 500 short runs
    make load ARGS="--visitors 20 --runs 60"

Visitors are browsers without a page: each has its own cookie and asks for its runs one after another, all of them at once. Every answer and its file must
carry the asker's own recipe. At the end some runs are made again, alone: same seed, same bits. Prints a table; ends with 1 when something is not as it must be.
"""

import argparse
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import PIL.Image
import psutil

ROOT = Path(__file__).parents[1]
GROWTH = 50  # KB that a run may leave in memory, as a slope over the last two thirds of them
TOKEN = "0123456789abcdef" * 2  # the visitor whose runs are cut off
WORDS = ("cat", "dog", "cactus", "apple", "rocket")


def recipe_of(visitor: int, number: int) -> dict:
    """A short run that no other asks for: its seed tells whose it is."""
    job = {"prompt": f"a {WORDS[visitor % len(WORDS)]}", "seed": 1000 * visitor + number}
    return {"task": "text_to_image", "job": job, "arms": [{"method": "ddim", "knobs": {"steps": 1, "scale": 1}}]}


@contextmanager
def studio(folder: Path, *more: str):
    """(address, process) of a studio that keeps its runs in the folder; killed at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, *(more or ["app.py"]), "--port", str(port)]
    environment = os.environ | {"UNNOISE_DATA": str(folder / "data"), "GRADIO_TEMP_DIR": str(folder / "gradio")}
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        until(lambda: process.poll() is not None or answers(address), 300, "the studio did not start")
        yield address, process
    finally:
        process.kill()
        process.wait()


def answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/gradio_api/startup-events", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def until(true, seconds: float, said: str) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(said)
        time.sleep(0.1)


# --- visitors --------------------------------------------------------------------------------------------


class Visitor:
    def __init__(self, address: str, number: int):
        self.number, self.client = number, httpx.Client(base_url=address, timeout=httpx.Timeout(1800, connect=120))
        self.client.get("/", headers={"accept": "text/html"})
        self.wrong: list[str] = []

    def run(self, number: int) -> tuple[str, str]:
        """(digest of the picture, path of its file) of one run; what is not as it must be goes to `wrong`."""
        asked = recipe_of(self.number, number)
        event = self.client.post("/gradio_api/call/run", json={"data": [asked, {}]}).raise_for_status().json()["event_id"]
        said = self.client.get(f"/gradio_api/call/run/{event}").text.strip().rpartition("event: ")[2]
        kind, _, body = said.partition("\ndata: ")
        if kind != "complete":
            self.wrong.append(f"visitor {self.number}: {body[:200]}")
            return "", ""
        result, files = json.loads(body)
        data = self.client.get(f"/gradio_api/file={files[0]['path']}").raise_for_status().content
        image = PIL.Image.open(io.BytesIO(data))
        for what, found in (("answer", result["job"]), ("file", json.loads(image.text["unnoise"])["job"])):
            if {name: found.get(name) for name in asked["job"]} != asked["job"]:
                self.wrong.append(f"visitor {self.number} was given another's {what}: {found}")
        return hashlib.sha256(np.asarray(image).tobytes()).hexdigest(), files[0]["path"]


def loaded(address: str, process, visitors: int, runs: int) -> dict:
    """All visitors at once until each has had its share of the runs."""
    people, ended, lock = [Visitor(address, i) for i in range(visitors)], [], threading.Lock()
    memory, over, asked, failed = [], threading.Event(), runs // visitors, []

    def measure():
        while not over.wait(1):
            memory.append((len(ended), psutil.Process(process.pid).memory_info().rss / 2**20))

    def visit(person: Visitor) -> None:
        try:
            for number in range(asked):
                began = time.monotonic()
                digest, path = person.run(number)
                with lock:
                    ended.append((person.number, number, time.monotonic() - began, digest, path))
        except Exception as error:
            failed.append(f"visitor {person.number}: {type(error).__name__} {error}")

    people[0].run(999)  # the model is loaded once, off the figures
    began = time.monotonic()
    threads = [threading.Thread(target=visit, args=(p,)) for p in people]
    watch = threading.Thread(target=measure)
    for thread in [watch, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began
    over.set()
    watch.join()
    foreign = sum(
        people[(who + 1) % visitors].client.get(f"/gradio_api/file={path}").status_code == 200 for who, _, _, _, path in ended if path and visitors > 1
    )
    again = sum(people[who].run(number)[0] != digest for who, number, _, digest, _ in ended[:: max(1, len(ended) // 10)])
    order = [who for who, *_ in ended]
    at = [[k for k, w in enumerate(order) if w == who] for who in range(visitors)]
    between = [j - i - 1 for own in at for i, j in zip(own, own[1:])]
    waits = [wait for _, _, wait, *_ in ended]
    late = np.array([m for m in memory if m[0] >= 0.3 * len(ended)])  # once caches are filled
    slope = np.polyfit(late[:, 0], late[:, 1], 1)[0] * 1024 if len(late) > 2 else float("nan")
    digests = [digest for *_, digest, _ in ended if digest]
    return {
        "runs asked, ended": (asked * visitors, len(ended)), "seconds": seconds, "wrong": [w for p in people for w in p.wrong] + failed, "again": again, "foreign": foreign,
        "same picture twice": len(digests) - len(set(digests)), "waits": np.percentile(waits or [0], [0, 5, 50, 95, 100]),
        "between": np.percentile(between or [0], [0, 5, 50, 95, 100]), "memory": (late[0, 1], late[-1, 1], late[:, 1].max(), slope) if len(late) else (0,) * 4,
    }  # fmt: skip


# --- killed ----------------------------------------------------------------------------------------------


def serve(port: int, ask: bool) -> None:
    """A studio in which, with `ask`, a visitor asks for three runs as the page does: one is done, one is running when it is killed, one waits."""
    from ui import page

    page.launch(port=port, prevent_thread_lock=True, quiet=True)
    if ask:
        from backends import jobs

        for prompt, steps, arms in (("a done cat", 1, 1), ("a cut off cat", 30, 6), ("a waiting cat", 1, 1)):
            arm = {"method": "ddim", "knobs": {"steps": steps}}
            jobs.studio().submit({"task": "text_to_image", "job": {"prompt": prompt}, "arms": [arm] * arms}, {}, owner())
    threading.Event().wait()


def owner() -> str:
    from types import SimpleNamespace

    from ui import visitor

    return visitor.owner(SimpleNamespace(cookies={"unnoise": TOKEN}, headers={}, session_hash=""))


def killed(folder: Path) -> list[str]:
    """What is not as it must be after kill −9 in the middle of a run and a restart."""
    from backends.spec import Outcome
    from backends.store import Store
    from ui import history

    (folder / "data").mkdir(exist_ok=True)
    store, me = Store(folder / "data"), owner()

    def kept() -> dict:
        return {r["words"].partition("a ")[2].strip(): r for r in store._do("SELECT * FROM runs WHERE owner = ?", me)}

    def row(words: str) -> dict | None:
        return next((r for r in store._do("SELECT * FROM runs WHERE owner = ? AND instr(words, ?)", me, words)), None)

    def ends(words: str) -> int:
        return sum(isinstance(e.event, Outcome) and e.event.value is not None for e in store.events(row(words)["id"])) if row(words) else 0

    with studio(folder, "-m", "tests.load", "--serve", "--ask") as (_, process):
        until(lambda: ends("cut off"), 300, "no arm of the second run ended")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = ends("cut off")
    wrong = [] if row("cut off")["state"] == "running" else ["the run had ended before the kill"]
    with studio(folder, "-m", "tests.load", "--serve"):
        until(lambda: row("waiting")["state"] == "done", 300, "what waited did not go on")
    if row("a done")["state"] != "done" or ends("a done") != 1:
        wrong.append("a finished run is lost")
    if row("cut off")["state"] != "interrupted" or ends("cut off") != before:
        wrong.append("the cut off run is not told, or a finished arm of it is lost")
    (cut,), _ = store.ended(me, "cut off")
    if history.CUT_OFF not in history._row(cut):
        wrong.append("the list does not say what happened")
    if len(kept()) != 3:
        wrong.append("a run is missing")
    store.close()
    return wrong


# --- the table -------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--visitors", type=int, default=100)
    parser.add_argument("--runs", type=int, default=500, help="of all visitors together")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--ask", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.port, args.ask)
    with tempfile.TemporaryDirectory(prefix="unnoise-load-") as name:
        folder = Path(name)
        with studio(folder) as (address, process):
            made = loaded(address, process, args.visitors, args.runs)
            alive = process.poll() is None and answers(address)
        (folder / "killed").mkdir()
        cut = killed(folder / "killed")
    (asked, ended), low, seconds = made["runs asked, ended"], made["waits"], made["seconds"]
    first, last, most, slope = made["memory"]
    rows = [
        ("runs asked for, ended", f"{asked}, {ended} in {seconds:.0f} s"),
        ("answers or files that carry another's recipe, or errors", str(len(made["wrong"]))),
        ("files of another visitor that are served", str(made["foreign"])),
        ("pictures that came twice, runs made again alone that differ", f"{made['same picture twice']}, {made['again']}"),
        ("from asking to the answer (s): least, 5 %, median, 95 %, most", ", ".join(f"{v:.1f}" for v in low)),
        (f"others served between two runs of one visitor (fair: {args.visitors - 1}): least, 5 %, median, 95 %, most", ", ".join(f"{v:.0f}" for v in made["between"])),
        ("memory (MB): after 30 % of the runs, at the end, most", f"{first:.0f}, {last:.0f}, {most:.0f}"),
        ("its slope over those runs (KB a run)", f"{slope:.1f}"),
        ("killed (−9) in the middle of a run and started again", "; ".join(cut) or "nothing finished is lost, what waited went on, the cut-off run says so"),
    ]  # fmt: skip
    print(f"| {args.visitors} visitors, {args.runs} runs | |\n|---|---|")
    print("\n".join(f"| {what} | {said} |" for what, said in rows))
    print("\n".join(made["wrong"][:10]), file=sys.stderr)
    unfair, grows = made["between"][-1] > 2 * args.visitors, slope > GROWTH
    return int(bool(made["wrong"] or made["foreign"] or made["again"] or made["same picture twice"] or cut or ended < asked or not alive or unfair or grows))


if __name__ == "__main__":
    sys.exit(main())
