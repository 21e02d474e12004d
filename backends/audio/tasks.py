"""The tasks of the audio tab."""

from dataclasses import dataclass
from typing import Annotated

from backends.audio.scores import check
from backends.spec import Job, Prompt, Slider, Task


@dataclass(frozen=True)
class Sing(Job):
    score: Annotated[
        str, Prompt(4000, help="syllable:note:beats, as in さ:A4:1 ra:B4:0.5 rest:1; or lyrics | notes, as in さくら | A4:1 A4:1 B4:2; ー holds a vowel")
    ] = ""
    tempo: Annotated[float, Slider(40, 200, 1, unit="beats/min", help="beats a minute")] = 100
    vibrato: Annotated[float, Slider(0, 0.5, 0.05, unit="semitones", help="how far held notes swing")] = 0.25

    def __post_init__(self):
        check(self.score, self.tempo)  # a score that can't be sung is refused once, not by each arm


SING = Task(
    "sing", "Sing", Sing, baseline="auxiliary", model="singer", metrics="backends.metrics.singing:sing", pictures=False,
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
