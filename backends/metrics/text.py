"""The figures under each arm of the text tabs."""

import json
import math
from collections import Counter

from backends.lazy import torch
from backends.spec import Media, Metric, Tokens
from backends.text import smollm
from backends.text.forms import fields_of, typed
from backends.text.tasks import FillForm, WriteText
from backends.worlds import text

TYPES = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,)}


def write_text(job: WriteText, value: Media | None, reference: Media | None) -> list[Metric]:
    """Whether a checkable answer is right; of free text, its perplexity under SmolLM2 and the entropy of its words.

    Perplexity alone rewards repetition, which entropy shows.
    """
    if not isinstance(value, Tokens):
        return []
    found, right = [], text.check(job.prompt, value.text)
    if right is not None:
        found.append(Metric("right (%)", 100 * right, "higher", _wanted(text.solution(job.prompt)) if right < 1 else ""))
    elif value.text.strip():
        found.append(Metric("word entropy (bits)", entropy(value.text), "higher"))
        if smollm.available():
            found.append(Metric("perplexity (SmolLM2)", perplexity(job.prompt, value.text), "lower"))
    return found


def _wanted(answer: str) -> str:
    return f"right: {answer}" if answer else ""


def entropy(said: str) -> float:
    """Bits of the distribution of its words: log2 of their number when none is repeated."""
    counts = Counter(said.lower().split())
    total = sum(counts.values())
    return -sum(n / total * math.log2(n / total) for n in counts.values()) if total else 0.0


def perplexity(prompt: str, said: str) -> float:
    """exp of SmolLM2's mean negative log-likelihood of the text's tokens, after the prompt."""
    net, tokenizer = smollm.load()
    before = tokenizer(prompt + "\n")["input_ids"]
    after = tokenizer(said)["input_ids"]
    with torch.no_grad():
        logits = net(input_ids=torch.tensor([before + after])).logits[0, len(before) - 1 : -1].float()
    return float(torch.nn.functional.cross_entropy(logits, torch.tensor(after)).exp())


def fill_form(job: FillForm, value: Media | None, reference: Media | None) -> list[Metric]:
    """Whether the answer is the asked object, each value of its type, read from words where need be, or null; how much of it is right, and how much invented, where the text is of this world.

    Filled in rightly: share of the facts said that stand in their field; invented: share of the fields the text says nothing of that hold a value.
    """
    if not isinstance(value, Tokens):
        return []
    try:
        form = json.loads(value.text)
    except ValueError:
        form = None
    kinds = fields_of(job.form)
    fields = list(kinds)
    if isinstance(form, dict):  # a number in quotes reads as one, whoever wrote it
        form = {f: None if v == text.NULL else typed(v, kinds[f]) if isinstance(v, str) and f in kinds else v for f, v in form.items()}
    valid = isinstance(form, dict) and list(form) == fields and all(type(form[f]) in TYPES[k] + (type(None),) for f, k in kinds.items())
    found, facts = [Metric("valid (%)", 100.0 * valid, "higher")], text.facts_in(job.text)
    if facts is None:
        return found
    held = {f: form.get(f) for f in fields} if isinstance(form, dict) else dict.fromkeys(fields)
    held = {f: "" if v is None else str(v) for f, v in held.items()}
    said, unsaid = [f for f in fields if f in facts], [f for f in fields if f in text.FIELDS and f not in facts]
    if said:
        wrong = "; ".join(f"{f}: {facts[f]}" for f in said if held[f] != facts[f])
        found.append(Metric("facts filled in rightly (%)", 100 * sum(held[f] == facts[f] for f in said) / len(said), "higher", _wanted(wrong)))
    if unsaid:
        found.append(Metric("fields invented (%)", 100 * sum(bool(held[f]) for f in unsaid) / len(unsaid), "lower"))
    return found
