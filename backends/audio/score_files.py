"""Scores from files: Standard MIDI Files and MusicXML become the text score of `worlds/singing.py`.

One voice is taken: MIDI's track with lyrics, else that with the most notes; MusicXML's first part with lyrics, else its first, and its
first voice; of notes that sound together the highest. What the score can't hold is said in a note or refused with BadInput.
"""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass, replace

from backends.archive import BROKEN
from backends.spec import BadInput
from backends.worlds import singing

MOST, LONGEST = 600, 4000  # notes, characters of a score
UNPACKED = 4 * 2**20  # bytes of an .mxl's score
DEFAULT = "ら"  # what is sung where no word is given
GAP = 0.12  # beats: shorter pauses between notes are articulation, not rests


@dataclass
class Event:
    """A note at `start` of `beats`; `midi` its number; `lyric` as written, empty where none is, "ー" where the vowel goes on."""

    start: float
    beats: float
    midi: int
    lyric: str = ""


def read(data: bytes, typed: str = "") -> tuple[dict, list[str]]:
    """(the fields score and tempo, notes to the visitor) of a file; `typed`: what stands in the score's field, whose lyrics serve when the file has none."""
    if data[:4] == b"MThd":
        events, tempo, said = midi(data)
    elif data[:4] == b"PK\x03\x04":
        events, tempo, said = music_xml(unpacked(data))
    elif data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<" or data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        events, tempo, said = music_xml(data)
    else:
        raise BadInput("The file is neither MIDI nor MusicXML; choose a .mid, .musicxml, .xml or .mxl file.")
    if not events:
        raise BadInput("The file holds no notes in the voice that would be sung; choose another file.")
    if len(events) > MOST:
        raise BadInput(f"The file's voice has {len(events)} notes; at most {MOST} are taken. Cut the tune to a verse.")
    events, shift = fitted(events)
    said += [f"The tune was moved by {shift // 12:+d} octave{'s' if abs(shift) > 12 else ''} into the voice's range."] if shift else []
    words, more = lyrics(events, typed)
    score = written(events, words)
    if len(score) > LONGEST:
        raise BadInput(f"The file's score takes {len(score)} characters; at most {LONGEST} are taken. Cut the tune to a verse.")
    return {"score": score, "tempo": round(min(200.0, max(40.0, tempo)))}, said + more


def fitted(events: list[Event]) -> tuple[list[Event], int]:
    """The notes, moved by whole octaves where that brings them all into the voice's range, and by how many semitones."""
    low, high = singing.NOTES
    for shift in (0, 12, -12, 24, -24, 36, -36):
        if all(low <= e.midi + shift <= high for e in events):
            return [replace(e, midi=e.midi + shift) for e in events], shift
    return events, 0


def lyrics(events: list[Event], typed: str) -> tuple[list[str], list[str]]:
    """A syllable for each note, and what to say of it; raises BadInput where the words are no Japanese syllables."""
    if any(e.lyric for e in events):
        out = []
        for i, event in enumerate(events):
            after_rest = i == 0 or event.start - events[i - 1].start - events[i - 1].beats > GAP
            word = re.sub(r"[\s\-_/\\.,!?'\"、。「」]+", "", event.lyric) or "ー"
            if word == "ー":
                out.append(DEFAULT if after_rest else "ー")  # a vowel isn't held over a rest
                continue
            try:
                some = singing.syllables(word)
            except ValueError:
                raise BadInput(
                    f"The file's lyric {word[:20]!r} is no syllable of kana or romaji that the voice knows; rewrite the lyrics in kana, or remove them from the file."
                ) from None
            if len(some) > 1:
                raise BadInput(f"The file's lyric {word[:20]!r} puts {len(some)} syllables on one note; give each note one.")
            out += some
        return out, []
    plain = typed.split("|")[0].strip()
    if plain and ":" not in plain:
        try:
            some = singing.syllables(plain)
        except ValueError:
            some = []
        if len(some) == len(events):
            return some, []
        return [DEFAULT] * len(events), [f"The file has no lyrics and {len(events)} notes, the score's field {len(some)} syllables; all is sung on {DEFAULT}."]
    return [DEFAULT] * len(events), [f"The file has no lyrics, so all is sung on {DEFAULT}; type lyrics before a | to change them."]


def written(events: list[Event], words: list[str]) -> str:
    """`syllable:note:beats` for each note, `rest:beats` between them."""
    out, now = [], events[0].start
    for event, word in zip(events, words, strict=True):
        if event.start - now > GAP:
            out.append(f"rest:{min(16.0, round(event.start - now, 3)):g}")
        out.append(f"{word}:{singing.note_name(event.midi)}:{min(16.0, max(0.05, round(event.beats, 3))):g}")
        now = event.start + event.beats
    return " ".join(out)


def top_voice(events: list[Event]) -> tuple[list[Event], bool]:
    """Of notes that sound together the highest: one that begins within another cuts it short; and whether any was left out."""
    out, left = [], False
    for event in sorted(events, key=lambda e: (e.start, -e.midi)):
        if out and event.start - out[-1].start < 0.03:  # a chord
            left = True
            continue
        if out and event.start < out[-1].start + out[-1].beats - 0.02:
            if event.start < out[-1].start + out[-1].beats / 2:
                left = True
            out[-1].beats = event.start - out[-1].start
        out.append(event)
    return out, left


SAID = "The file has several voices at once; the highest is sung."


def midi(data: bytes) -> tuple[list[Event], float, list[str]]:
    """(notes, beats a minute, what to say) of a Standard MIDI File."""
    import mido

    file = None
    for charset in ("utf-8", "shift_jis", "latin1"):
        try:
            file = mido.MidiFile(file=io.BytesIO(data), clip=True, charset=charset)
            break
        except UnicodeDecodeError:
            continue
        except Exception:  # mido tells of broken files by EOFError, OSError, ValueError, KeyError, IndexError
            break
    if file is None or not file.ticks_per_beat or file.ticks_per_beat & 0x8000:
        raise BadInput("The MIDI file can't be read, or counts frames instead of beats; export it again as a Standard MIDI File.")
    tempos = [m.tempo for track in file.tracks for m in track if m.type == "set_tempo"]
    tracks = [_track(track, file.ticks_per_beat) for track in file.tracks]
    tracks = [t for t in tracks if t] or [[]]
    chosen = max(tracks, key=lambda t: (any(e.lyric for e in t), len(t)))
    if not any(e.lyric for e in chosen):  # karaoke files keep the words on a track of their own
        words = {round(at, 2): word for track in file.tracks for at, word in _words(track, file.ticks_per_beat).items()}
        if sum(round(e.start, 2) in words for e in chosen) > len(chosen) / 2:
            for event in chosen:
                event.lyric = words.get(round(event.start, 2), "ー")
    events, left = top_voice(chosen)
    changed = len(set(tempos)) > 1
    return events, 60e6 / tempos[0] if tempos and tempos[0] else 120.0, [SAID] * left + ["The tempo changes in the file; its first is kept."] * changed


def _words(track, ticks: int) -> dict[float, str]:
    """Beat -> lyric."""
    out, now = {}, 0
    for message in track:
        now += message.time
        if message.type == "lyrics" or (message.type == "text" and message.text[:1] not in "@%"):
            out[now / ticks] = message.text
    return out


def _track(track, ticks: int) -> list[Event]:
    """The notes of a track, drums left out."""
    out, sounding, words, now = [], {}, _words(track, ticks), 0
    for message in track:
        now += message.time
        if message.type not in ("note_on", "note_off") or message.channel == 9:
            continue
        if (began := sounding.pop(message.note, None)) is not None:
            out.append(Event(began / ticks, (now - began) / ticks, message.note, words.get(began / ticks, "")))
        if message.type == "note_on" and message.velocity:
            sounding[message.note] = now
    return sorted((e for e in out if e.beats > 0), key=lambda e: e.start)


def unpacked(data: bytes) -> bytes:
    """The score within a compressed MusicXML file (.mxl), bounded in size."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            names = [n for n in file.namelist() if n.lower().endswith((".xml", ".musicxml")) and not n.startswith("META-INF")]
            if not names:
                raise BadInput("The .mxl file holds no score; export it again as MusicXML.")
            with file.open(names[0]) as part:
                found = part.read(UNPACKED + 1)
    except BadInput:
        raise
    except (*BROKEN, OSError):
        raise BadInput("The .mxl file can't be unpacked; export it again, or as uncompressed MusicXML.") from None
    if len(found) > UNPACKED:
        raise BadInput(f"The score in the .mxl file is larger than {UNPACKED >> 20} MB; cut the tune to a verse.")
    return found


def music_xml(data: bytes) -> tuple[list[Event], float, list[str]]:
    """(notes, beats a minute, what to say) of a partwise MusicXML score's part; ties are joined, grace notes left out, repeats not played."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        root = fromstring(data)
    except DefusedXmlException:
        raise BadInput("The MusicXML file defines entities of its own, which are not read; export it again.") from None
    except (ParseError, ValueError, RecursionError, LookupError):
        raise BadInput("The MusicXML file is not whole; export it again.") from None
    parts = root.findall("part")
    if root.tag != "score-partwise" or not parts:
        raise BadInput("The file is XML but no partwise MusicXML score; export it as MusicXML (score-partwise).")
    part = next((p for p in parts if p.find(".//lyric") is not None), parts[0])
    try:
        events, tempo, said = _part(part)
    except (AttributeError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        raise BadInput("The MusicXML file holds a note whose pitch or duration can't be read; export it again.") from None
    said += [f"The file has {len(parts)} parts; the {'first' if part is parts[0] else 'first with lyrics'} is sung."] * (len(parts) > 1)
    return events, tempo, said + ["The file has repeats; each is sung once."] * (part.find(".//repeat") is not None)


def _tempo(item) -> float:
    """Quarters a minute that a direction or its sound gives; 0 where it gives none."""
    mark = item if item.tag == "sound" else item.find("sound")
    if mark is not None and mark.get("tempo"):
        return float(mark.get("tempo"))
    metronome = item.find(".//metronome")
    if metronome is None or not metronome.findtext("per-minute"):
        return 0.0
    quarters = {"whole": 4, "half": 2, "eighth": 0.5, "16th": 0.25}.get(metronome.findtext("beat-unit"), 1)
    return float(metronome.findtext("per-minute")) * quarters * (1.5 if metronome.find("beat-unit-dot") is not None else 1)


def _part(part) -> tuple[list[Event], float, list[str]]:
    events, now, divisions, tempo, voice, left = [], 0.0, 1.0, 0.0, None, False
    for measure in part.iter("measure"):
        for item in measure:
            divisions = float(item.findtext("divisions") or divisions) if item.tag == "attributes" else divisions
            length = float(item.findtext("duration") or 0) / divisions
            tempo = tempo or _tempo(item)
            if item.tag in ("backup", "forward"):
                now += length if item.tag == "forward" else -length
            if item.tag != "note" or item.find("grace") is not None:
                continue
            chord, mine, pitch = item.find("chord") is not None, item.findtext("voice") or "1", item.find("pitch")
            voice = voice or mine
            if pitch is not None and mine == voice:
                number = singing.midi_of(f"{pitch.findtext('step').strip()}{int(pitch.findtext('octave'))}") + round(float(pitch.findtext("alter") or 0))
                if not 0 <= number <= 127:
                    raise ValueError(number)
                if chord and events:
                    events[-1].midi, left = max(events[-1].midi, number), True
                elif any(t.get("type") == "stop" for t in item.findall("tie")) and events and events[-1].midi == number:
                    events[-1].beats += length
                elif length > 0:
                    events.append(Event(now, length, number, item.findtext("lyric/text") or ""))
            left |= mine != voice
            now += 0 if chord else length
    return events, tempo or 120.0, [SAID.replace("the highest", "the first")] * left
