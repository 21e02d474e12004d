"""The text world: short questions whose answers can be checked, forms to fill in, and running text.

An Example is a prompt and its answer. `check` tells from the prompt alone what was asked and whether an answer is
right, so that what a visitor types is judged too. Kinds, after reasoning-gym's tasks of the same names where there
is one (written anew: its package pulls in a dozen others for what takes a few lines here):

  sum        "37 + 5 - 12 ="                              30
  countdown  "make 24 from 3, 5, 9"                       (5 + 3) * 9 - ... each number once
  sudoku     "sudoku 4_1_ _2__ ..."                       4312 ...: 4×4, one solution
  profile    a sentence on a person, and fields to fill   JSON; what the sentence leaves out is NULL
  recall     "red box: 4821. ... what is red box?"        4821
  recipe     "recipe: lemon cake"                         JSON (its data are train-time only; see text_build.py)
  story      "a story about a fox and a lantern"          a few sentences

Examples are drawn from a numpy Generator; seeds from HELD_OUT_SEED on are kept from training, and so is one problem in
ten (`held_out`), whatever its seed.
"""

import ast
import functools
import itertools
import json
import operator
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "worlds" / "text"
HELD_OUT_SEED = 1_000_000_000
NULL = "<none>"  # the filler of a field that has no value, as in S³
KINDS = ("sum", "countdown", "sudoku", "profile", "recall")
LENGTHS = {"sum": 8, "countdown": 16, "sudoku": 20, "profile": 64, "recall": 8}  # tokens that an answer of each kind needs


@dataclass(frozen=True)
class Example:
    kind: str
    prompt: str
    answer: str


def held_out(prompt: str) -> bool:
    """True for the tenth of all prompts that no training shows; one problem said otherwise is the same problem."""
    same = re.sub(r" #\d+$", "", prompt)
    if kind_of(same) == "countdown":
        same = " ".join(sorted(re.findall(r"\d+", same)[1:])) + same.split("from")[0]
    return zlib.crc32(same.encode()) % 10 == 0


def draw(rng: np.random.Generator, kind: str, for_test: bool = False, **kw) -> Example:
    """An example of one of KINDS; `for_test`: of those that no training shows."""
    while True:
        example = Example(kind, *_MAKERS[kind](rng, **kw))
        if held_out(example.prompt) is for_test:
            return example


# --- sums and countdown ----------------------------------------------------------------------------------


def _sum(rng, terms: int = 0, digits: int = 0):
    n = terms or int(rng.choice([2, 3, 4], p=[0.72, 0.22, 0.06]))
    digits = digits or int(rng.random() < 0.5)  # half of them of single digits
    values = [int(rng.integers(0, 10 ** (digits or int(rng.integers(1, 3))))) for _ in range(n)]
    signs = rng.choice(["+", "-"], n - 1)
    text = str(values[0]) + "".join(f" {s} {v}" for s, v in zip(signs, values[1:]))
    return f"{text} =", str(values[0] + sum(v if s == "+" else -v for s, v in zip(signs, values[1:])))


def _countdown(rng, numbers: int = 3):
    while True:
        values = [int(v) for v in rng.integers(1, 21, numbers)]
        text, value, loose = str(values[0]), values[0], False  # loose: a sum that wants brackets before it is multiplied
        for v, op in zip(values[1:], rng.choice(["+", "-", "*"], numbers - 1)):
            text = f"({text})" if op == "*" and loose else text
            text, value, loose = f"{text} {op} {v}", _OPERATORS[op](value, v), op != "*"
        if 0 < value <= 100:
            return f"make {value} from {', '.join(str(v) for v in rng.permutation(values))}", text


_OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_NODES = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


def evaluate(expression: str) -> tuple[int, list[int]]:
    """(value, numbers used) of an expression of whole numbers, + - * and brackets; ValueError for anything else."""

    def walk(node):
        if isinstance(node, ast.BinOp) and type(node.op) in _NODES:
            return _NODES[type(node.op)](walk(node.left), walk(node.right))
        if isinstance(node, ast.Constant) and type(node.value) is int:
            used.append(node.value)
            return node.value
        raise ValueError(expression)

    used: list[int] = []
    if len(expression) > 200:
        raise ValueError(expression)
    try:
        return walk(ast.parse(expression.strip(), mode="eval").body), used
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError(expression) from None


# --- sudoku ----------------------------------------------------------------------------------------------


@functools.cache
def grids() -> np.ndarray:
    """(288, 16): every 4×4 sudoku."""
    found: list[tuple[int, ...]] = []

    def fill(cells: tuple[int, ...]):
        at = len(cells)
        if at == 16:
            return found.append(cells)
        for v in range(1, 5):
            if not any(cells[p] == v for p in range(at) if _see(p, at)):
                fill((*cells, v))

    fill(())
    return np.array(found)


def _see(a: int, b: int) -> bool:
    return a // 4 == b // 4 or a % 4 == b % 4 or (a // 8 == b // 8 and a % 4 // 2 == b % 4 // 2)


def _sudoku(rng, empty: int = 0):
    """As many cells emptied as wanted (4 to 11), as long as one solution is left."""
    solved = grids()[rng.integers(len(grids()))]
    clues, wanted = solved.copy(), empty or int(rng.integers(4, 12))
    for cell in rng.permutation(16):
        trial = clues.copy()
        trial[cell] = 0
        if ((grids() == trial) | (trial == 0)).all(1).sum() == 1:
            clues = trial
        if (clues == 0).sum() == wanted:
            break
    return "sudoku " + _rows(clues), _rows(solved)


def _rows(cells) -> str:
    return " ".join("".join(str(v) if v else "_" for v in cells[i : i + 4]) for i in (0, 4, 8, 12))


# --- profiles: a sentence, and a form to fill in from it ------------------------------------------------------

FIRST = [
    "Ada",
    "Bruno",
    "Carla",
    "Diego",
    "Elena",
    "Felix",
    "Greta",
    "Hugo",
    "Ines",
    "Jonas",
    "Karin",
    "Luca",
    "Maria",
    "Nils",
    "Olga",
    "Pablo",
    "Rosa",
    "Sven",
    "Tara",
    "Viktor",
]
LAST = [
    "Almeida",
    "Berg",
    "Costa",
    "Dubois",
    "Eriksen",
    "Fischer",
    "Garcia",
    "Hansen",
    "Ito",
    "Jansen",
    "Keller",
    "Lopez",
    "Moreau",
    "Novak",
    "Okafor",
    "Petrov",
    "Rossi",
    "Silva",
    "Tanaka",
    "Weber",
]
VALUES = {
    "age": [str(a) for a in range(18, 90)],
    "job": ["baker", "nurse", "pilot", "painter", "farmer", "teacher", "dentist", "plumber", "singer", "librarian", "gardener", "cook"],
    "city": ["Lisbon", "Oslo", "Madrid", "Vienna", "Dublin", "Prague", "Athens", "Helsinki", "Warsaw", "Porto", "Geneva", "Riga"],
    "hobby": ["chess", "sailing", "pottery", "hiking", "photography", "cycling", "knitting", "fishing", "dancing", "running"],
    "pet": ["a cat", "a dog", "a parrot", "a rabbit", "a turtle", "two goldfish"],
}
FIELDS = ("name", *VALUES)
_SAYS = {
    "age": ["{n} is {v} years old.", "At {v}, {n} still enjoys every day.", "{n} turned {v} last spring."],
    "job": ["{n} works as a {v}.", "{n} is a {v} by trade.", "By day {n} is a {v}."],
    "city": ["{n} lives in {v}.", "{n} has a flat in {v}.", "Home is {v}."],
    "hobby": ["In the evening there is time for {v}.", "{n} loves {v}.", "On Sundays it is {v}."],
    "pet": ["{n} has {v}.", "At home waits {v}."],
}


def person(rng, said: int | None = None) -> tuple[str, dict[str, str]]:
    """(sentences, what they say): `said` of the five facts beside the name, two to five when not given."""
    facts = {"name": f"{rng.choice(FIRST)} {rng.choice(LAST)}"}
    chosen = rng.permutation(list(VALUES))[: int(rng.integers(2, 6)) if said is None else said]
    sentences = [f"This is {facts['name']}."] if rng.random() < 0.3 else []
    for field in chosen:
        facts[field] = str(rng.choice(VALUES[field]))
        name = facts["name"] if not sentences else facts["name"].split()[0]
        says = [s for s in _SAYS[field] if sentences or "{n}" in s]
        sentences.append(str(rng.choice(says)).format(n=name, v=facts[field]))
    return " ".join(sentences or [f"This is {facts['name']}."]), facts


def _profile(rng, said: int | None = None, fields: tuple[str, ...] = ()):
    text, facts = person(rng, said)
    asked = fields or tuple(str(f) for f in rng.permutation(FIELDS)[: int(rng.integers(2, 7))])
    return form_prompt(text, asked), json.dumps({f: facts.get(f, NULL) for f in asked})


def form_prompt(text: str, fields) -> str:
    """How a form is asked for: the text, then the keys; S³ puts its scaffold behind the same words."""
    return f"{text} fields: {', '.join(fields)}"


# --- recall: a key among many --------------------------------------------------------------------------------

_COLOURS = ["red", "blue", "green", "black", "white", "yellow", "purple", "orange", "brown", "pink", "grey", "golden"]
_THINGS = ["box", "door", "key", "lamp", "boat", "cup", "tower", "bridge", "garden", "clock", "drum", "chair", "ring", "coat", "bell", "map"]


def recall_text(rng, pairs: int, depth: float | None = None) -> tuple[str, str, str]:
    """(notes, question, answer): `pairs` keys with a four-digit value each; the one asked for stands at `depth` (0 first, 1 last)."""
    noted, key, value = _noted(rng, pairs, depth)
    return " ".join(f"{k}: {v}." for k, v in noted), f"what is {key}?", value


def _noted(rng, pairs: int, depth: float | None = None) -> tuple[list[tuple[str, str]], str, str]:
    """(keys and values in their order, the key asked for, its value)."""
    keys = [f"{c} {t}" for c in _COLOURS for t in _THINGS]
    chosen = [keys[i] for i in rng.choice(len(keys), pairs, replace=pairs > len(keys))]
    values = [f"{rng.integers(1000, 10000)}" for _ in chosen]
    at = int(rng.integers(pairs)) if depth is None else round(depth * (pairs - 1))
    return [pair for i, pair in enumerate(zip(chosen, values)) if pair[0] != chosen[at] or i == at], chosen[at], values[at]


def _recall(rng, pairs: int = 0):
    notes, question, answer = recall_text(rng, pairs or int(rng.integers(1, 11)))
    return f"{notes} {question}", answer


_WAYS = ("{k}: {v}.", "{k} = {v};", "{k} {v},", "the {k} is {v}.", "the {k} has number {v}.", "{v} is on the {k}.", "{v}: {k}.", "on the {k} one reads {v}.")


def _notes(rng):
    """Recall's notes written in many ways, in half of them each in a way of its own, with sentences between; near the trained length in most."""
    (pairs, asked, answer), said = _noted(rng, int(rng.integers(1, 13))), []
    one = str(rng.choice(_WAYS)) if rng.random() < 0.5 else None
    between = float(rng.choice([0.0, 0.0, 0.15, 0.4]))
    for key, value in pairs:
        said.append((one or str(rng.choice(_WAYS))).format(k=key, v=value))
        if rng.random() < between:
            said.append(person(rng, 1)[0])
    return f"{' '.join(said)} what is {asked}?", answer


_MAKERS = {"sum": _sum, "countdown": _countdown, "sudoku": _sudoku, "profile": _profile, "recall": _recall, "notes": _notes}


# --- what is right -------------------------------------------------------------------------------------------


def kind_of(prompt: str) -> str:
    """The kind a prompt asks for, by its form; empty for free text."""
    for kind, pattern in (
        ("sum", r"\s*-?\d+(\s*[+-]\s*\d+)+\s*=\s*"), ("countdown", r"make \d+ from \d+(, ?\d+)+\.?"), ("sudoku", r"sudoku( [1-4_]{4}){4}"),
        ("recall", r"(?s).*[a-z ]+: \d{4}\..*what is [a-z ]+\?"), ("profile", r"(?s).+ fields: [a-z, ]+"),
    ):  # fmt: skip
        if re.fullmatch(pattern, prompt.strip()):
            return kind
    return ""


def check(prompt: str, answer: str) -> float | None:
    """How right an answer is, 0 to 1: a form's share of right fields, else 1 or 0; None when the prompt asks for nothing checkable."""
    kind, answer = kind_of(prompt), answer.strip()
    if kind == "sum":
        left = prompt.strip().rstrip("= ").replace(" ", "")
        return float(answer == str(sum(int(v) for v in re.findall(r"[+-]?\d+", left))))
    if kind == "countdown":
        target, *numbers = (int(v) for v in re.findall(r"\d+", prompt))
        try:
            value, used = evaluate(answer)
        except ValueError:
            return 0.0
        return float(value == target and sorted(used) == sorted(numbers))
    if kind == "sudoku":
        clues, cells = re.sub(r"[^1-4_]", "", prompt.split("sudoku")[1]), re.sub(r"\s", "", answer)
        fits = re.fullmatch(r"[1-4]{16}", cells) and all(c in ("_", a) for c, a in zip(clues, cells))
        return float(bool(fits) and not any(cells[a] == cells[b] for a in range(16) for b in range(a) if _see(a, b)))
    if kind == "recall":
        key = re.search(r"what is ([a-z ]+)\?\s*$", prompt).group(1)
        return float((found := re.search(rf"\b{re.escape(key)}: (\d{{4}})\.", prompt)) is not None and answer == found.group(1))
    if kind == "profile":
        return _form_right(prompt, answer)
    return None


def solution(prompt: str) -> str:
    """A right answer to a prompt that asks for one; empty where there is none, or nothing checkable is asked for (forms have `facts_in`)."""
    kind, numbers = kind_of(prompt), [int(v) for v in re.findall(r"\d+", prompt)]
    if kind == "sum":
        return str(sum(int(v) for v in re.findall(r"[+-]?\d+", prompt.replace(" ", ""))))
    if kind == "recall":
        key = re.search(r"what is ([a-z ]+)\?\s*$", prompt).group(1)
        found = re.search(rf"\b{re.escape(key)}: (\d{{4}})\.", prompt)
        return found.group(1) if found else ""
    if kind == "sudoku":
        clues = np.array([int(c) if c != "_" else 0 for c in re.sub(r"[^1-4_]", "", prompt.split("sudoku")[1])])
        fitting = grids()[((grids() == clues) | (clues == 0)).all(1)]
        return _rows(fitting[0]) if len(fitting) else ""
    if kind == "countdown" and len(numbers) <= 5:
        return _made(numbers[0], numbers[1:])
    return ""


def _made(target: int, numbers: list[int]) -> str:
    """An expression of all the numbers that gives the target, by trying: the first number with the next, and so on."""
    for order in sorted(set(itertools.permutations(numbers))):
        for signs in itertools.product("+-*", repeat=len(order) - 1):
            said, value = str(order[0]), order[0]
            for sign, number in zip(signs, order[1:]):
                said = f"({said})" if sign == "*" and re.search(r" [+-] \d+$", said) else said
                said, value = f"{said} {sign} {number}", _OPERATORS[sign](value, number)
            if value == target:
                return said
    return ""


def facts_in(sentences: str) -> dict[str, str] | None:
    """What sentences of this world say of a person; None when no name of it stands there."""
    name = re.search(rf"\b(?:{'|'.join(FIRST)}) (?:{'|'.join(LAST)})\b", sentences)
    if not name:
        return None
    found = {f: [v for v in values if re.search(rf"\b{v}\b", sentences)] for f, values in VALUES.items()}
    return {"name": name[0]} | {f: v[0] for f, v in found.items() if v}


def _form_right(prompt: str, answer: str) -> float | None:
    sentences, _, asked = prompt.rpartition(" fields: ")
    facts = facts_in(sentences)
    if facts is None:
        return None
    try:
        form = json.loads(answer)
    except ValueError:
        return 0.0
    fields = [f.strip() for f in asked.split(",")]
    right = [str(form.get(f) or NULL) == facts.get(f, NULL) for f in fields] if isinstance(form, dict) else [False]
    return sum(right) / len(right)
