"""Plurals and articles of English nouns."""

PLURALS = {"mouse": "mice", "sheep": "sheep", "fish": "fish", "tropical fish": "tropical fish", "wolf": "wolves", "knife": "knives"}


def plural(name: str) -> str:
    if name in PLURALS:
        return PLURALS[name]
    head, sep, tail = name.partition(" of ") if " of " in name else name.partition(" with ")
    if sep:
        return plural(head) + sep + tail
    if name.endswith(("s", "x", "ch", "sh")):
        return name + ("" if name.endswith("s") and not name.endswith("ss") else "es")
    return name[:-1] + "ies" if name.endswith("y") and name[-2] not in "aeiou" else name + "s"


def article(noun: str) -> str:
    if plural(noun) == noun and noun.endswith("s") and not noun.startswith(("glass", "compass")):
        return noun
    return ("an " if noun[0].lower() in "aeio" or noun.startswith(("umbrella", "ugly")) else "a ") + noun
