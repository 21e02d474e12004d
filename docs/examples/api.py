"""python docs/examples/api.py [ADDRESS]: a recipe through the studio's API, with its progress (pip install gradio_client). /run gives the last event alone."""

import json
import sys
from pathlib import Path

from gradio_client import Client

studio = Client(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860", verbose=False)
print([m["slug"] for m in studio.predict(api_name="/methods") if m["task"] == "text_to_image"])
print(next(t["job"] for t in studio.predict(api_name="/tasks") if t["slug"] == "text_to_image"))

recipe = json.loads(Path(__file__).with_name("recipe.json").read_text())
for event, files in studio.submit(recipe, {}, api_name="/compare"):  # noqa: B007
    if event["event"] == "step":
        print(f"arm {event['arm'] + 1}, step {event['i']} of {event['n']}")
for arm, file in zip(event["recipe"]["outcome"]["arms"], files):
    print(f"{arm['seconds']:.1f} s, {arm['nfe']} evaluations: {file}")
