"""Which words of a prompt are its concepts: named by the user, else found."""

import functools
import re

from backends.denoiser import Cond
from backends.image.sampling import needs_words
from backends.spec import BadInput
from backends.worlds import emoji

MOST = 6
# Words that say how, where and on what, not what.
_FUNCTION_WORDS = """
a an the and or of in on at by to with for from near next front behind above below under over beside between left right top bottom middle
corner side against into is are one two three four five several some many big small large tiny little huge picture emoji image photo render
3d showing background gradient floor wall table stripes dots sky grass sandy snow starry night light dark
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split()) | {word for colour in emoji.COLOURS for word in colour.split()}


@functools.cache
def _names() -> dict[str, int]:
    """Every way the emoji world names a concept (name, plural, synonyms) -> its index."""
    found: dict[str, int] = {}
    for concept in emoji.concepts():
        # Short synonyms (“see”, “do”) and function words (“under”) say something else in most prompts.
        synonyms = [t for t in concept.tags if len(t) > 3 and not set(t.lower().split()) <= FUNCTION_WORDS]
        for name in (concept.name, emoji.plural(concept.name), *synonyms):
            found.setdefault(name.lower(), concept.index)
    return found


@functools.cache
def _pattern() -> re.Pattern:
    names = sorted(_names(), key=len, reverse=True)  # “hot dog” before “dog”
    return re.compile(r"(?<!\w)(" + "|".join(re.escape(n) for n in names) + r")(?!\w)")


def emoji_concepts(prompt: str) -> dict[str, int]:
    """Words of the prompt -> index of the emoji concept they name, in the prompt's order."""
    # The background comes after the objects in the world's captions: “on an orange background” is no orange.
    text = re.sub(
        r"\b(" + "|".join(emoji.COLOURS) + r")(?= (background|gradient|wall|floor|table|stripes|dots|and))", lambda m: "·" * len(m[0]), prompt.lower()
    )
    return {m[0]: _names()[m[0]] for m in _pattern().finditer(text)}


def concept_words(prompt: str) -> list[str]:
    """The concepts a prompt names: the emoji world's where it names two or more, else content words beside the one."""
    found = list(emoji_concepts(prompt))
    if len(found) < 2:
        inside = {w for name in found for w in name.split()}
        found += [w for w in dict.fromkeys(re.findall(r"\w+", prompt.lower())) if w not in FUNCTION_WORDS and w not in inside]
    return found[:MOST]


def chosen(words: str, cond: Cond) -> tuple[list[str], list[list[int]]]:
    """(concepts, token positions of each) from a comma-separated knob, or found in the prompt when it is empty.

    Raises BadInput when a named word does not stand in the prompt or none can be found.
    """
    named = list(dict.fromkeys(w.strip() for w in words.split(",") if w.strip()))
    if named:
        if len(named) > MOST:
            raise BadInput(f"At most {MOST} concept words are taken; name the ones that matter.")
        return named, needs_words(cond, named)
    found = [(w, r) for w in concept_words(cond.text) if (r := cond.rows(w))]
    if not found:
        raise BadInput("No concept was found in the prompt; name its objects, separated by commas, under “concepts”.")
    return [w for w, _ in found], [r for _, r in found]
