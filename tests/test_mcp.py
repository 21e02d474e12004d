"""The MCP server through the official client: the page's recipes, sentences and queue, each session a visitor of its own; and the examples as they are written."""

import asyncio
import base64
import io
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import numpy as np
import PIL.Image
import pytest
from gradio_client import Client
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from test_jobs import asked, until

from backends import jobs, recipe

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "docs/examples"


@asynccontextmanager
async def visit(address):
    async with streamable_http_client(f"{address}/gradio_api/mcp") as (read, write, _), ClientSession(read, write) as session:
        await session.initialize()
        yield session


def example(name: str, address: str) -> str:
    ran = subprocess.run([sys.executable, EXAMPLES / name, address], capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_api_example_runs_as_it_is_written(address):
    said = example("api.py", address)
    assert "'adaptive_guidance'" in said and "arm 2, step 4 of 4" in said and said.count(" evaluations: ") == 2


def test_the_mcp_example_runs_as_it_is_written(address):
    said = example("mcp_client.py", address)
    assert "'run_recipe'" in said and "of 2: running" in said and "1-ddim.png image" in said and "2-adaptive_guidance.png image" in said


def test_methods_are_described_with_a_recipe_that_is_taken(address):
    async def ask():
        async with visit(address) as session:
            listed = (await session.call_tool("list_methods", {})).structuredContent
            said = {m["slug"]: (await session.call_tool("describe_method", {"method": m["slug"]})).structuredContent for m in listed["methods"][::9]}
            return listed, said | {"ddim": (await session.call_tool("describe_method", {"method": "ddim"})).structuredContent}

    listed, said = asyncio.run(ask())
    assert {m["slug"] for m in listed["methods"]} >= {"ddim", "storm"} and {t["slug"] for t in listed["tasks"]} >= {"text_to_image"}
    steps = next(k for k in said["ddim"]["knobs"] if k["name"] == "steps")
    assert (steps["low"], steps["high"]) == (1, 100) and said["ddim"]["job"]["prompt"]["type"] == "text" and said["ddim"]["examples"]
    assert recipe.parse(said["ddim"]["recipe"])
    for found in said.values():
        recipe.check_knobs(found["recipe"]["arms"][0]["knobs"], recipe.METHODS[found["slug"]].knobs, "here")
        assert set(found["recipe"]["job"]) <= set(found["job"])


def test_what_is_refused_is_said_in_the_words_of_the_api(address):
    wrong = {"task": "text_to_image", "job": {"prompt": "a cat"}, "arms": [{"method": "ddim", "knobs": {"steps": 1000}}]}

    async def ask():
        async with visit(address) as session:
            calls = [("run_recipe", {"recipe": wrong}), ("run_recipe", {"recipe": {}}), ("list_methods", {"task": "x"}), ("describe_method", {"method": "x"}),
                     ("fetch_files", {"run": "x"}), ("run_recipe", {"recipe": wrong, "inputs": {"x": "not base64!"}})]  # fmt: skip
            return [await session.call_tool(name, arguments) for name, arguments in calls]

    answers = asyncio.run(ask())
    assert all(a.isError and len(a.content) == 1 for a in answers)
    with pytest.raises(Exception) as api:
        Client(address, verbose=False).predict(wrong, {}, api_name="/run")
    said = [a.content[0].text for a in answers]
    assert said[0] == str(api.value) and "from 1 to 100" in said[0]
    assert "must name its task" in said[1] and "No task is called x" in said[2] and "No method is called x" in said[3]
    assert "No run of this session" in said[4] and "base64" in said[5]


def test_a_picture_of_ones_own_goes_by_any_name_and_results_come_as_they_are(address):
    out = io.BytesIO()
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(out, "PNG")
    job = {"image": {"sha256": "mine"}, "prompt": "a cat", "fill": False, "colour": True}
    given = {"task": "edit_image", "job": job, "arms": [{"method": "steered", "knobs": {"steps": 2}}]}

    async def ask():
        async with visit(address) as session:
            ran = await session.call_tool("run_recipe", {"recipe": given, "inputs": {"mine": base64.b64encode(out.getvalue()).decode()}})
            made = await session.call_tool("fetch_files", {"run": ran.structuredContent["run"]})
            assert not ran.isError and ran.structuredContent["complete"], ran.structuredContent
            return made, (await session.read_resource(ran.content[1].uri)).contents[0]

    made, resource = asyncio.run(ask())
    picture = next(part for part in made.content if part.type == "image")
    assert picture.mimeType == "image/png" and picture.data == resource.blob
    assert recipe.KEY in PIL.Image.open(io.BytesIO(base64.b64decode(picture.data))).text, "a file carries its recipe"


def test_a_session_sees_stops_and_reads_its_own_runs_alone(address, slow):
    source, queue = slow

    async def ask():
        async with visit(address) as mine, visit(address) as other:
            begun = (await mine.call_tool("run_recipe", {"recipe": asked("mine", 50), "wait": False})).structuredContent
            behind = (await other.call_tool("run_recipe", {"recipe": asked("other", 5), "wait": False})).structuredContent
            await asyncio.to_thread(until, lambda: source.ran == ["mine"])
            source.let(3)
            listed = [(await s.call_tool("list_runs", {})).structuredContent["runs"] for s in (mine, other)]
            refused = [await other.call_tool(tool, {"run": begun["run"]}) for tool in ("stop_run", "fetch_files")]
            with pytest.raises(Exception, match="No run of this session"):
                await other.read_resource(f"unnoise://runs/{begun['run']}/1-ddim.png")
            await mine.call_tool("stop_run", {"run": begun["run"]})
            source.let(2)
            await asyncio.to_thread(until, lambda: source.ran == ["mine", "other"])
            return begun, behind, listed, refused, (await mine.call_tool("list_runs", {})).structuredContent["runs"]

    begun, behind, listed, refused, after = asyncio.run(ask())
    assert [[run["run"] for run in runs] for runs in listed] == [[begun["run"]], [behind["run"]]] and "next in the queue" in listed[1][0]["said"]
    assert all(r.isError and "No run of this session" in r.content[0].text for r in refused)
    assert [run["state"] for run in after] == ["stopped"]


def test_sessions_of_one_address_take_turns_as_one_and_an_ended_one_leaves_nothing(address, slow, monkeypatch):
    source, queue = slow
    monkeypatch.setattr(jobs, "OWN", 2)

    async def begun(session, name):
        return await session.call_tool("run_recipe", {"recipe": asked(name, 2), "wait": False})

    async def ask():
        async with visit(address) as first:
            done = (await begun(first, "done")).structuredContent["run"]
            source.let(2)
            await asyncio.to_thread(until, lambda: queue.store.ended(owner(done))[1])
            await begun(first, "runs")
            await asyncio.to_thread(until, lambda: source.ran == ["done", "runs"])
            await begun(first, "waits")
            async with visit(address) as second:
                await begun(second, "another session's")
                refused = await begun(second, "one too many")
                return refused, done, owner(done), list(queue._running)

    def owner(run):
        return queue.store._do("SELECT owner FROM runs WHERE id = ?", run)[0]["owner"]

    refused, done, who, (running,) = asyncio.run(ask())  # both clients end their sessions
    assert refused.isError and "2 of your runs wait already" in refused.content[0].text
    until(lambda: running.stopped() and not queue._order())
    source.let(2)
    until(lambda: running.over)
    assert queue.find(done, who) is None and source.ran == ["done", "runs"] and running.state == "stopped"


def test_a_call_that_is_cancelled_ends_its_run(address, slow):
    source, queue = slow

    async def ask():
        async with visit(address) as session:
            heard = asyncio.Event()

            async def progress(done, total, said):
                if "step 2" in said:
                    heard.set()

            call = asyncio.create_task(session.call_tool("run_recipe", {"recipe": asked("cancelled", 50)}, progress_callback=progress))
            await asyncio.to_thread(until, lambda: source.ran == ["cancelled"])
            source.let(2)
            await asyncio.wait_for(heard.wait(), 30)
            (run,) = queue._running
            call.cancel()
        await asyncio.to_thread(until, lambda: run.stopped() or run.over)  # the session is over, with all that it asked for
        source.let(2)
        await asyncio.to_thread(until, lambda: run.over)
        return run

    assert asyncio.run(ask()).state == "stopped"


def test_another_sites_script_is_refused(address):
    ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    for headers in ({"origin": "https://elsewhere.example"}, {"sec-fetch-site": "cross-site"}):
        assert httpx.post(f"{address}/gradio_api/mcp", json=ask, headers=headers | {"accept": "application/json, text/event-stream"}).status_code == 403
