"""The studio for programs that speak MCP: six tools on the recipes, the checks and the queue that the page and the API have too.

A client's session is a visitor of its own, which sees, stops and reads its own runs alone; it ends with the client, and its runs with it, or after IDLE
seconds without a call. Its runs wait in the name of the client's address, which may have many sessions.
"""

import base64
import functools
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync
from mcp import types
from mcp.server.fastmcp import Context, FastMCP
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from backends import METHODS, TASKS, BadInput, headless, jobs, stills
from backends import recipe as recipes
from backends.inputs import MAX_BYTES
from backends.jobs import Run
from backends.spec import Outcome
from ui import running, visitor
from ui.running import Ticket

PATH = "/gradio_api/mcp"  # where Gradio's own server would be; its compression leaves streams at this address alone
IDLE = 6 * 3600.0
INLINE = 2 * 2**20  # bytes of a file that goes along with an answer; a larger one is a link, read as a resource
LISTED = 20  # ended runs
MIME = {
    ".png": "image/png",
    ".webp": "image/webp",
    ".flac": "audio/flac",
    ".glb": "model/gltf-binary",
    ".json": "application/json",
    ".npz": "application/octet-stream",
    ".ply": "application/octet-stream",
}
INSTRUCTIONS = """Methods of diffusion papers, run and compared by recipes. Ask list_methods what there is, describe_method what one takes and for a recipe
that runs, run_recipe to run it (one to six arms side by side), fetch_files for what it made. Runs wait in a queue that all visitors share."""
log = logging.getLogger(__name__)
logging.getLogger("mcp.server.streamable_http").addFilter(lambda record: "standalone SSE writer" not in record.getMessage())  # said whenever a client leaves


def server() -> tuple[list[Route], Callable]:
    """(routes, lifespan) for the page's application."""
    made = FastMCP(
        "Unnoise", INSTRUCTIONS, session_idle_timeout=IDLE, max_request_body_size=2 * MAX_BYTES, host="", log_level="WARNING"
    )  # host="": which names it is reached by only the proxy before it knows; _Own checks what browsers say
    for tool in (list_methods, describe_method, run_recipe, list_runs, fetch_files, stop_run):
        made.add_tool(_told(tool), structured_output=False)
    made.resource("unnoise://runs/{run}/{name}", description="A file that a run of yours made.", mime_type="application/octet-stream")(read_file)
    made.streamable_http_app()  # makes the session manager

    @asynccontextmanager
    async def lifespan(_):
        async with made.session_manager.run():
            yield

    return [Route(path, _Own(made.session_manager.handle_request)) for path in (PATH, PATH + "/")], lifespan


class _Own:
    """ASGI: what another site's script asks for is refused, as it is on the page. A session that its client ends leaves no runs."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        app = self.app if visitor.own(visitor.headers(scope)) else PlainTextResponse("Another site's page can't use this studio.", 403)
        await app(scope, receive, send)
        if app is self.app and scope["method"] == "DELETE":
            await run_sync(jobs.studio().leave, _named(visitor.header(scope, b"mcp-session-id")))


def _told(tool: Callable) -> Callable:
    """What a tool refuses is said in the words of recipe.parse; what nobody foresaw goes to the log."""

    @functools.wraps(tool)
    async def call(*args, **named) -> types.CallToolResult:
        try:
            return await tool(*args, **named)
        except BadInput as bad:
            said = str(bad)
        except Exception:
            log.exception("an MCP tool failed")
            said = "The call failed; the log holds the details."
        return types.CallToolResult(isError=True, content=[types.TextContent(type="text", text=said)])

    return call


def _answer(said: dict, *more) -> types.CallToolResult:
    return types.CallToolResult(
        isError=said.get("state") == "failed", content=[types.TextContent(type="text", text=json.dumps(said)), *more], structuredContent=said
    )


def _owner(ctx: Context) -> str:
    return _named(ctx.request_context.request.headers["mcp-session-id"])


def _named(session: str) -> str:
    return visitor.session(f"mcp {session}")  # 122 random bits, made by the server


async def _find(ctx: Context, run: str) -> Run:
    found = await run_sync(jobs.studio().find, run, _owner(ctx))
    if found is None:
        raise BadInput(f"No run of this session is called {run[:40]}; list_runs names them.")
    return found


# --- the tools -------------------------------------------------------------------------------------------


async def list_methods(task: str = "") -> types.CallToolResult:
    """The tasks, and the methods of one task or of all: slug, title, what it does, whether it is a baseline."""
    if task and task not in TASKS:
        raise BadInput(f"No task is called {task[:60]}; there are {', '.join(TASKS)}.")
    tasks = [{"slug": t.slug, "title": t.title, "help": t.help} for t in TASKS.values() if task in ("", t.slug)]
    rows = [{"slug": m.slug, "title": m.title, "task": m.task.slug, "baseline": not m.paper, "summary": m.summary}
            for m in METHODS.values() if task in ("", m.task.slug)]  # fmt: skip
    return _answer({"tasks": tasks, "methods": rows})


async def describe_method(method: str) -> types.CallToolResult:
    """One method: its knobs with ranges, units and defaults, the models it runs on, what its proof measured, the fields of its task's job, examples, and a
    recipe for run_recipe."""
    if method not in METHODS:
        raise BadInput(f"No method is called {method[:60]}; list_methods names them.")
    found, task = METHODS[method], METHODS[method].task
    said = next(row for row in await run_sync(headless.describe) if row["slug"] == method)
    fields = headless.fields(task)
    job = {name: value for name, value in next((e["job"] for e in task.examples if e.get("job")), {}).items() if name in fields}
    knobs = {knob["name"]: knob["default"] for knob in said["knobs"]}
    made = {"schema": recipes.SCHEMA, "task": task.slug, "job": job, "arms": [{"method": found.slug, "knobs": knobs}]}
    return _answer(said | {"job": fields, "examples": list(task.examples), "recipe": made})


async def run_recipe(ctx: Context, recipe: dict[str, Any], inputs: dict[str, str] = {}, wait: bool = True) -> types.CallToolResult:  # noqa: B006
    """Run a recipe: {"task", "model"?, "job", "arms": [{"method", "knobs"?, "stack"?}], "grid"?}. With `wait` it tells its progress, ends when the call is
    cancelled, and answers with figures and the names of its files; without, it answers at once and goes on.

    `inputs`: base64 PNG, FLAC or npz for each picture, sound, object or cube of one's own, under the name by which the job calls it: {"sha256": name}.
    """
    studio, line = jobs.studio(), visitor.at(ctx.request_context.request.client)
    run = await run_sync(lambda: studio.submit(recipe, recipes.decode_inputs(inputs), _owner(ctx), line=line))
    if not wait:
        return _answer(await run_sync(_standing, run))
    try:
        await _follow(run, ctx)
    finally:
        studio.stop(run)
    names = [name for name, _ in await run_sync(lambda: list(_files(run)))]
    return _answer(await run_sync(_standing, run) | {"files": names}, *(_link(run, name) for name in names))


async def list_runs(ctx: Context) -> types.CallToolResult:
    """This session's runs, the newest first: where each stands, how long it will take, what came of its arms."""

    def rows() -> list[dict]:
        studio, owner = jobs.studio(), _owner(ctx)
        ended, _ = studio.store.ended(owner, most=LISTED)
        runs = [*reversed(studio.active(owner)), *(studio.find(kept.id, owner) for kept in ended)]
        return [_standing(run) for run in runs if run]

    return _answer({"runs": await run_sync(rows)})


async def fetch_files(ctx: Context, run: str, names: list[str] = []) -> types.CallToolResult:  # noqa: B006
    """What a run made so far, all of it or the files named: pictures, sounds and texts as they are, objects, cubes and what is large as links to resources.
    Each file carries its recipe."""
    found = await _find(ctx, run)
    made = await run_sync(lambda: dict(_files(found)))
    if unknown := [name[:60] for name in names if name not in made]:
        raise BadInput(f"This run has no file {', '.join(unknown)}; it has {', '.join(made) or 'none yet'}.")
    return _answer(await run_sync(_standing, found) | {"files": list(made)}, *(_content(found, name, made[name]) for name in names or made))


async def stop_run(ctx: Context, run: str) -> types.CallToolResult:
    """Stop a run of this session within a step; what it has made stays."""
    found = await _find(ctx, run)
    jobs.studio().stop(found)
    return _answer(await run_sync(_standing, found))


async def read_file(ctx: Context, run: str, name: str) -> bytes:
    made = dict(await run_sync(lambda found: list(_files(found)), await _find(ctx, run)))
    if name not in made:
        raise BadInput(f"This run has no file {name[:60]}; it has {', '.join(made) or 'none yet'}.")
    return made[name]


# --- a run as JSON and as files --------------------------------------------------------------------------


async def _follow(run: Run, ctx: Context) -> None:
    """Progress, in arms or cells done, as often as what is said changes."""
    told, before = "", 0.0
    async with aclosing(running.news(run, Ticket(run))) as news:
        async for _ in news:
            said = await run_sync(running.standing, run)
            if said != told and not run.over:
                done = running.share(run) * len(run.cells)
                told, before = said, max(done, before + 1e-6)  # the protocol wants it to rise
                await ctx.report_progress(before, len(run.cells), said)


def _events(run: Run) -> list:
    with jobs.studio().watch(run) as feed:
        return [event.event for event in feed.take() or ()]


def _standing(run: Run) -> dict:
    """Where a run stands; `arms`: what came of those that have ended."""
    arms = [headless.outcome(event) for event in _events(run) if isinstance(event, Outcome)]
    active = {} if run.over else {"said": running.standing(run), "seconds_left": jobs.studio().estimate(run)}
    complete = headless.complete(arms, len(run.cells))
    return {
        "run": run.id,
        "state": run.state,
        "task": run.given["task"],
        "complete": complete,
        "error": run.error or (running.UNKEPT if run.unkept else ""),
        **active,
        "arms": arms,
    }


def _files(run: Run) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of each file, named as the API and the command line name them."""
    outcomes = [event for event in _events(run) if isinstance(event, Outcome)]
    for outcome in outcomes:
        for ending, data, _ in headless.files_of(outcome, run.pictures):
            yield f"{outcome.arm + 1}-{run.cells[outcome.arm]['arms'][0]['method']}{ending}", data
    if run.given.get("grid") and outcomes:
        whole = recipes.with_outcome(run.given, arms=[headless.outcome(o) for o in outcomes])
        yield headless.SHEET, headless.sheet(whole, stills.stills(outcomes), run.pictures)


def _link(run: Run, name: str) -> types.ResourceLink:
    return types.ResourceLink(type="resource_link", uri=f"unnoise://runs/{run.id}/{name}", name=name, mimeType=MIME[Path(name).suffix])


def _content(run: Run, name: str, data: bytes):
    kind = MIME[Path(name).suffix]
    if len(data) > INLINE or kind.split("/")[0] not in ("image", "audio") and kind != MIME[".json"]:
        return _link(run, name)
    if kind == MIME[".json"]:
        return types.TextContent(type="text", text=data.decode())
    encoded = base64.b64encode(data).decode()
    made = types.ImageContent if kind.startswith("image/") else types.AudioContent
    return made(type=kind.split("/")[0], data=encoded, mimeType=kind)
