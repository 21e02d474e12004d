"""python docs/examples/mcp_client.py [ADDRESS]: a recipe through the studio's MCP server, with its progress (pip install mcp)."""

import asyncio
import base64
import json
import sys
from pathlib import Path

from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860"
RECIPE = json.loads(Path(__file__).with_name("recipe.json").read_text())


async def progress(done: float, total: float | None, said: str | None) -> None:
    print(f"{done:.2f} of {total:.0f}: {said}")


async def main() -> None:
    async with streamable_http_client(f"{ADDRESS}/gradio_api/mcp") as (read, write, _), ClientSession(read, write) as session:
        await session.initialize()
        print([tool.name for tool in (await session.list_tools()).tools])
        found = await session.call_tool("list_methods", {"task": "text_to_image"})
        print([m["slug"] for m in found.structuredContent["methods"]])
        ran = await session.call_tool("run_recipe", {"recipe": RECIPE}, progress_callback=progress)
        if ran.isError:
            sys.exit(ran.content[0].text)
        run = ran.structuredContent["run"]
        made = await session.call_tool("fetch_files", {"run": run})
        for name, part in zip(made.structuredContent["files"], made.content[1:]):
            print(name, part.type, f"{len(base64.b64decode(part.data))} bytes" if part.type in ("image", "audio") else "")


asyncio.run(main())
