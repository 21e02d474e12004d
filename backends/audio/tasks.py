"""The tasks of the audio tab."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from backends.audio.scores import check
from backends.spec import Audio, BadInput, Brings, Job, Prompt, Slider, Sound, Task

LEAST = 0.1  # s of a span


def silent(sound: Audio) -> bool:
    return not np.abs(sound.samples).max(initial=0) > 1e-4


@dataclass(frozen=True)
class TextToAudio(Job):
    """A new sound of `seconds`; or, with `sound`, what is heard in it from `start` to `end` made anew."""

    prompt: Annotated[str, Prompt(500, required=False, help="what is heard, how often, how loud, what comes after; may stay empty in an edit")] = ""
    seconds: Annotated[float, Slider(0.5, 10, 0.02, unit="s", help="length of a new sound")] = 2.56
    sound: Annotated[Audio | None, Sound(required=False, longest=30.0, help="to edit: what stands outside the span stays")] = None
    start: Annotated[float, Slider(0, 30, 0.02, unit="s", help="edit: where the span to make anew begins")] = 1.0
    end: Annotated[float, Slider(0, 30, 0.02, unit="s", help="edit: where it ends; past the sound's end, the sound goes on")] = 2.0

    def __post_init__(self):  # refused once, not by each arm
        if self.sound is None:
            if not self.prompt:
                raise BadInput("The prompt is empty; write what should be heard.")
            return
        if silent(self.sound):
            raise BadInput("The sound is silent; give one in which something is heard, or leave it out to make a new one.")
        if self.end - self.start < LEAST:
            raise BadInput(f"The span from {self.start:g} to {self.end:g} s is too short; let it end at least {LEAST:g} s after it begins.")
        if self.start > self.sound.seconds:
            raise BadInput(f"The span begins at {self.start:g} s and the sound ends at {self.sound.seconds:.2f} s; begin it earlier.")


TEXT_TO_AUDIO = Task(
    "text_to_audio", "Text to audio", TextToAudio, baseline="ddim_audio", model="sounds-dit",
    metrics="backends.metrics.sounds:text_to_audio", pictures=False,
    help="Words become sound; or a span of a sound is made anew to fit them. Each arm guides its own way.",
    examples=(
        {"job": {"prompt": "a flute plays a slow rising scale", "seed": 1}, "arms": [{"method": "ddim_audio", "knobs": {"scale": 3.0}}, {"method": "ezaudio", "knobs": {"scale": 3.0}}]},
        {"job": {"prompt": "a car honks three times", "seed": 2},
         "arms": [{"method": "ddim_audio", "knobs": {"scale": 10.0}}, {"method": "ezaudio", "knobs": {"scale": 10.0}}]},
        {"job": {"prompt": "a sheep bleats, then a trumpet plays two low notes", "seed": 3}, "arms": [{"method": "ezaudio", "knobs": {"scale": 3.0}}]},
        {"job": {"prompt": "a xylophone plays a fast falling arpeggio while the wind blows", "seed": 4},
         "arms": [{"method": "ddim_audio", "knobs": {"scale": 3.0}}, {"method": "ezaudio", "knobs": {"scale": 3.0}}]},
        # sounds: files of assets/examples
        {"job": {"prompt": "a hand bell rings", "sound": "beeps_rising.flac", "start": 0.9, "end": 2.0, "seed": 1},
         "arms": [{"method": "ezaudio", "knobs": {"scale": 3.5, "rescale": 0.0}}]},
        {"job": {"prompt": "a clock ticks, then a crow caws", "sound": "clock.flac", "start": 1.3, "end": 2.5, "seed": 2}, "arms": [{"method": "ezaudio"}]},
    ),
)  # fmt: skip


@dataclass(frozen=True)
class EnhanceSpeech(Job):
    """`clean`: the same sentence without its noise, at any rate; only the figures look at it."""

    sound: Annotated[Audio | None, Sound(longest=60.0, help="speech in noise or in a room, at any rate")] = None
    clean: Annotated[Audio | None, Sound(required=False, longest=60.0, of="sound", help="the same without noise, for the figures alone")] = None

    def __post_init__(self):
        for given, said in (
            (self.sound, "The sound is silent; there is no speech to enhance."),
            (self.clean, "The clean sound is silent; take it away, or give the speech without its noise."),
        ):
            if given is not None and silent(given):  # refused once, not by each arm
                raise BadInput(said)
        if self.sound is not None and self.clean is not None and abs(self.sound.seconds - self.clean.seconds) > 0.1:
            raise BadInput(f"The clean sound lasts {self.clean.seconds:.1f} s and the noisy one {self.sound.seconds:.1f} s; they must be of one length.")


ENHANCE_SPEECH = Task(
    "enhance_speech", "Enhance speech", EnhanceSpeech, baseline="sgmse", model="speech",
    metrics="backends.metrics.speech:enhance_speech", pictures=False,
    help="Speech in noise or in a room; each arm brings the voice back its own way. With the clean sound beside it, the figures say how well.",
    examples=(
        {"title": "a voice at a cash till", "job": {"sound": "speech_till.flac", "clean": "speech_till_clean.flac"},
         "arms": [{"method": "predictive"}, {"method": "sgmse"}, {"method": "storm"}]},
        {"title": "a voice and a cow in a room · 3, 10 and 30 steps", "job": {"sound": "speech_cow_room.flac", "clean": "speech_cow_room_clean.flac"},
         "arms": [{"method": "storm", "knobs": {"steps": 3}}, {"method": "storm", "knobs": {"steps": 10}}, {"method": "storm", "knobs": {"steps": 30}}]},
        {"title": "a voice among six others · beside ready enhancers", "job": {"sound": "speech_babble.flac", "clean": "speech_babble_clean.flac"},
         "arms": [{"method": "rnnoise"}, {"method": "nsnet2"}, {"method": "deepfilternet"}, {"method": "storm"}]},
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Sing(Job):
    score: Annotated[
        str,
        Prompt(
            4000,
            help="syllable:note:beats, as in さ:A4:1 ra:B4:0.5 rest:1; or lyrics | notes, as in さくら | A4:1 A4:1 B4:2; ー holds a vowel; for a Mandarin voice pinyin, as in xiao:C5:1",
            files=(".mid", ".midi", ".musicxml", ".xml", ".mxl"),
            read="backends.audio.score_files:read",
            fills=("score", "tempo"),
        ),
    ] = ""
    tempo: Annotated[float, Slider(40, 200, 1, unit="beats/min", help="beats a minute")] = 100
    vibrato: Annotated[float, Slider(0, 0.5, 0.05, unit="semitones", help="how far held notes swing")] = 0.25

    def __post_init__(self):
        check(self.score, self.tempo)  # a score that can't be sung is refused once, not by each arm


SING = Task(
    "sing", "Sing", Sing, baseline="auxiliary", model="singer", metrics="backends.metrics.singing:sing", pictures=False,
    brings=Brings(
        "backends.audio.bank_drop:brought", "Bring a voicebank", (".zip", ".oudep"),
        "A zip of a DiffSinger voicebank for OpenUtau; where it brings no vocoder, that one's too.",
    ),
    help="A melody with Japanese syllables is sung by a small trained voice: notes from G#5 down to C4, up to 30 s.",
    examples=(
        {"job": {"score": "さくらさくらのやまもさとーも | A4:1 A4:1 B4:2 A4:1 A4:1 B4:2 A4:1 B4:1 C5:1 B4:1 A4:1 B4:0.5 A4:0.5 F4:2", "tempo": 84, "seed": 1},
         "arms": [{"method": "auxiliary"}, {"method": "diffsinger"}, {"method": "full_diffusion"}]},
        {"job": {"score": "うさぎおいしかのやま | F4:1 F4:1 F4:1 G4:1.5 A4:0.5 G4:1 A4:1 A4:1 A#4:1 C5:2", "tempo": 88, "seed": 1},
         "arms": [{"method": "auxiliary"}, {"method": "diffsinger"}]},
        {"job": {"score": "ほ:E4:1 た:A4:1.5 る:A4:0.5 の:A4:1 ひ:C#5:1 か:B4:1.5 り:A4:0.5 ま:B4:1 ど:C#5:1 の:A4:1.5 ゆ:A4:0.5 き:C#5:1 ー:E5:3 rest:1", "tempo": 92, "seed": 1},
         "arms": [{"method": "auxiliary"}, {"method": "diffsinger"}, {"method": "diffsinger", "knobs": {"boundary": "B: classifier"}}]},
        {"job": {"score": "do do so so la la so | F4:1 F4:1 C5:1 C5:1 D5:1 D5:1 C5:2", "tempo": 104, "seed": 1},
         "arms": [{"method": "diffsinger"}, {"method": "diffsinger", "knobs": {"sampler": "plms", "speedup": 5}}]},
    ),
)  # fmt: skip
