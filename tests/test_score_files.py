"""MIDI and MusicXML files as scores to sing."""

import io
import zipfile

import mido
import pytest

from backends import BadInput, inputs, recipe
from backends.audio.score_files import MOST, UNPACKED, read
from backends.audio.tasks import SING
from backends.worlds import singing


def midi(notes, tempo=120, lyrics=(), ticks=480, **track) -> bytes:
    """A file of (start beat, beats, number) on one track, with a lyric a note."""
    events = []
    for i, (start, beats, number) in enumerate(notes):
        if i < len(lyrics):
            events.append((start, 0, mido.MetaMessage("lyrics", text=lyrics[i])))
        events += [(start, 1, mido.Message("note_on", note=number, velocity=80, **track)), (start + beats, -1, mido.Message("note_off", note=number, **track))]
    file, line, now = mido.MidiFile(ticks_per_beat=ticks, charset="utf-8"), mido.MidiTrack(), 0
    line.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo)))
    for at, _, message in sorted(events, key=lambda e: e[:2]):
        line.append(message.copy(time=round(at * ticks) - now))
        now = round(at * ticks)
    file.tracks.append(line)
    out = io.BytesIO()
    file.save(file=out)
    return out.getvalue()


def xml(*notes: str, kind="score-partwise", head="") -> bytes:
    body = "".join(notes)
    return f'<?xml version="1.0"?>{head}<{kind}><part id="P1"><measure><attributes><divisions>2</divisions></attributes><sound tempo="90"/>{body}</measure></part></{kind}>'.encode()


def note(step="A", octave=4, length=2, more="") -> str:
    return f"<note><pitch><step>{step}</step><octave>{octave}</octave></pitch><duration>{length}</duration>{more}</note>"


def mxl(inner: bytes, name="score.xml") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("META-INF/container.xml", "<container/>")
        file.writestr(name, inner)
    return out.getvalue()


def scratched(data: bytes) -> bytes:
    """With bytes of the score's compressed stream overwritten."""
    at = data.index(b"score.xml") + 20
    return data[:at] + b"\xff" * 9 + data[at + 9 :]


TUNE = [(0, 1, 69), (1, 1, 69), (2, 2, 71), (5, 1, 67)]


def test_a_midi_file_with_lyrics_is_its_score():
    fields, said = read(midi(TUNE, 84, ["さ", "く", "ら", "ー"]))
    assert fields == {"score": "さ:A4:1 く:A4:1 ら:B4:2 rest:1 ら:G4:1", "tempo": 84} and said == []  # a vowel isn't held over a rest
    assert len(singing.parse(fields["score"])) == 5
    assert read(midi(TUNE, 84, ["sa", "ku-", "ra", "no"]))[0]["score"].startswith("sa:A4:1 ku:A4:1 ra:B4:2")


def test_words_come_from_the_field_where_the_file_has_none():
    assert read(midi(TUNE), "さくらの")[0]["score"] == "さ:A4:1 く:A4:1 ら:B4:2 rest:1 の:G4:1"
    fields, said = read(midi(TUNE), "さくら | A4:1")
    assert "ら:A4:1 ら:A4:1" in fields["score"] and "3" in said[0]
    assert "no lyrics" in read(midi(TUNE))[1][0]
    assert [n.midi for n in singing.parse(read(midi(TUNE))[0]["score"])] == [69, 69, 71, 0, 67]


def test_a_tune_outside_the_range_is_moved_by_octaves():
    fields, said = read(midi([(s, b, n - 24) for s, b, n in TUNE]))
    assert "A4" in fields["score"] and "+2 octaves" in said[0]


def test_of_chords_and_counterpoint_the_top_is_sung():
    fields, said = read(midi([(0, 4, 60), (0, 1, 72), (1, 1, 74), (2, 2, 76), (2, 2, 64)]))
    assert [n.midi for n in singing.parse(fields["score"])] == [72, 74, 76] and any("highest" in s for s in said)


def test_music_xml_with_ties_rests_and_lyrics():
    tied = note(length=2, more='<tie type="start"/><lyric><text>さ</text></lyric>') + note(length=2, more='<tie type="stop"/>')
    rest = "<note><rest/><duration>2</duration></note>"
    score = xml(
        tied, rest, note("B", more="<lyric><text>ku</text></lyric>"), note("C", 5), "<note><grace/><pitch><step>D</step><octave>5</octave></pitch></note>"
    )
    fields, said = read(score)
    assert fields == {"score": "さ:A4:2 rest:1 ku:B4:1 ー:C5:1", "tempo": 90} and said == []
    assert read(mxl(score))[0] == fields


def test_a_second_voice_is_left_out_and_said():
    low = note("C", 4, more="<voice>2</voice>")
    fields, said = read(xml(note(more="<voice>1</voice>"), "<backup><duration>2</duration></backup>", low))
    assert fields["score"] == "ら:A4:1" and "several voices" in said[0]


def test_the_part_with_lyrics_is_sung_and_repeats_are_said():
    sung = (
        xml(note("B", more="<lyric><text>ku</text></lyric>"), '<barline><repeat direction="backward"/></barline>')
        .decode()
        .split("<part ")[1]
        .split("</score")[0]
    )
    both = xml(note()).replace(b"</part>", f"</part><part {sung}".encode())
    fields, said = read(both)
    assert fields["score"] == "ku:B4:1" and "first with lyrics" in said[0] and "repeats" in said[1]


def test_a_metronome_counts_its_own_beat():
    mark = "<direction><direction-type><metronome><beat-unit>half</beat-unit><per-minute>60</per-minute></metronome></direction-type></direction>"
    assert read(xml(mark, note()).replace(b'<sound tempo="90"/>', b""))[0]["tempo"] == 120


BOMB = '<!DOCTYPE s [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
FAR = '<!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "neither MIDI nor MusicXML"), (b"hello", "neither MIDI nor MusicXML"), (midi(TUNE)[:30], "can't be read|no notes"), (b"MThd", "can't be read"),
        (midi([]), "no notes"), (midi(TUNE, channel=9), "no notes"), (midi([(i, 1, 70) for i in range(MOST + 1)]), "at most 600"),
        (midi(TUNE, lyrics=["Twin", "kle"]), "no syllable"), (midi(TUNE, lyrics=["さくら"]), "3 syllables on one note"),
        (b"<score", "not whole"), (b"<html></html>", "no partwise"), (xml(note(), kind="score-timewise"), "partwise"), (xml(), "no notes"),
        (xml(note("H")), "can't be read"), (xml(note(octave=99)), "can't be read"), (xml(note(length="x")), "can't be read"),
        (xml(note(), head=BOMB), "entities"), (xml(note(), head=FAR), "entities"),
        (mxl(b" " * (UNPACKED + 9)), "larger than 4 MB"), (mxl(b"", "readme.txt"), "no score"), (b"PK\x03\x04rest", "can't be unpacked"),
        (mxl(xml(note()))[:-90], "can't be unpacked"), (scratched(mxl(xml(*[note()] * 50))), "can't be unpacked"),
    ],
)  # fmt: skip
def test_what_can_not_be_sung_is_refused_with_a_sentence(data, said):
    with pytest.raises(BadInput, match=said):
        read(data)


def test_the_form_opens_a_file(tmp_path):
    rule = recipe.marks(SING.job)["score"]
    path = tmp_path / "tune.mid"
    path.write_bytes(midi(TUNE, 84, ["さ", "く", "ら", "の"]))
    assert inputs.fields(path, rule, "")[0]["tempo"] == 84
    path.write_bytes(b"0" * (inputs.MAX_SCORE + 1))
    with pytest.raises(BadInput, match="larger than 1 MB"):
        inputs.fields(path, rule, "")
    from ui.form import _opener

    assert _opener(rule)(str(path), "さ", "before", 100) == ["before", 100]  # what stands there stays
