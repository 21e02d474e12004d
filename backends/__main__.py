"""`python -m backends methods` and `python -m backends run RECIPE.json --out DIR`: the studio without its page."""

import argparse
import json
import sys
from pathlib import Path

from backends import BadInput, headless, recipe


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m backends", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("methods", help="print the registry as JSON")
    runner = commands.add_parser("run", help="run a recipe, or the recipe inside a result's PNG, FLAC, GLB, WebP or npz; one JSON event a line")
    runner.add_argument("recipe", type=Path)
    runner.add_argument("--out", type=Path, required=True, help="folder for the results and their inputs")
    args = parser.parse_args(argv)
    if args.command == "methods":
        print(json.dumps(headless.describe(), indent=1))
        return 0
    try:
        given, pictures = recipe.from_file(args.recipe)
        args.out.mkdir(parents=True, exist_ok=True)
        for event in headless.run(given, pictures, args.out):
            print(json.dumps(event), flush=True)
    except (BadInput, OSError) as error:
        print(json.dumps({"event": "error", "error": str(error)}), flush=True)
        return 2
    return 0 if event["complete"] else 1


if __name__ == "__main__":
    sys.exit(main())
