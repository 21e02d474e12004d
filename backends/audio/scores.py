"""A visitor's score: read, and refused in a sentence when it can't be sung."""

from backends.spec import BadInput
from backends.worlds import singing

LONGEST, SHORTEST = 30.0, 0.06  # seconds: of a song, of a note


def check(score: str, tempo: float, tongue: singing.Tongue | None = None) -> list[singing.Note]:
    """The score's notes between rests, its syllables read in the tongue, or in the one they seem to be of; raises BadInput."""
    if not score.strip():
        raise BadInput("The score is empty; write for example さ:A4:1 く:A4:1 ら:B4:2.")
    try:
        notes = singing.parse(score, tongue or singing.tongue_of(score))
    except ValueError as error:
        raise BadInput(f"Score: {error}") from None
    sung = [n for n in notes if n.midi]
    if not sung:
        raise BadInput("The score holds rests only; give it a syllable to sing.")
    low, high = singing.NOTES
    if out := [n for n in sung if not low <= n.midi <= high]:
        name, ends = singing.note_name(out[0].midi), [singing.note_name(m) for m in singing.NOTES]
        raise BadInput(f"Score: {name} ({out[0].syllable}) is outside the voice's range, {ends[0]} to {ends[1]}; transpose the tune.")
    if (short := min(n.beats for n in notes) * 60 / tempo) < SHORTEST:
        raise BadInput(f"The score's shortest note lasts {1000 * short:.0f} ms; at least {1000 * SHORTEST:.0f} ms are needed: slow down or lengthen it.")
    notes = singing.framed(notes, tempo)
    if (seconds := singing.times(notes, tempo)[-1]) > LONGEST:
        raise BadInput(f"The song lasts {seconds:.0f} s; at most {LONGEST:.0f} s are sung at once. Shorten it or raise the tempo.")
    return notes
