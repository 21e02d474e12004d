"""The tasks of the audio tab."""

from dataclasses import dataclass
from typing import Annotated

from backends.spec import Audio, Job, Prompt, Slider, Sound, Task


@dataclass(frozen=True)
class TextToAudio(Job):
    """A new sound of `seconds`; or, with `sound`, what is heard in it from `start` to `end` made anew."""

    prompt: Annotated[str, Prompt(500, required=False, help="what is heard, how often, how loud, what comes after; may stay empty in an edit")] = ""
    seconds: Annotated[float, Slider(0.5, 10, 0.02, unit="s", help="length of a new sound")] = 2.56
    sound: Annotated[Audio | None, Sound(required=False, longest=30.0, help="to edit: what stands outside the span stays")] = None
    start: Annotated[float, Slider(0, 30, 0.02, unit="s", help="edit: where the span to make anew begins")] = 1.0
    end: Annotated[float, Slider(0, 30, 0.02, unit="s", help="edit: where it ends; past the sound's end, the sound goes on")] = 2.0


TEXT_TO_AUDIO = Task(
    "text_to_audio", "Text to audio", TextToAudio, baseline="ddim_audio", model="sounds-dit",
    metrics="backends.metrics.sounds:text_to_audio", pictures=False,
    help="Words become sound; or a span of a sound is made anew to fit them. Each arm guides its own way.",
    examples=(
        {"job": {"prompt": "a flute plays a slow rising scale", "seed": 1}, "arms": [{"method": "ddim_audio"}, {"method": "ezaudio"}]},
        {"job": {"prompt": "a car honks three times", "seed": 2},
         "arms": [{"method": "ddim_audio", "knobs": {"scale": 10.0}}, {"method": "ezaudio", "knobs": {"scale": 10.0}}]},
        {"job": {"prompt": "a sheep bleats, then a trumpet plays two low notes", "seed": 3}, "arms": [{"method": "ezaudio"}]},
        {"job": {"prompt": "a xylophone plays a fast falling arpeggio while the wind blows", "seed": 4}, "arms": [{"method": "ddim_audio"}, {"method": "ezaudio"}]},
        # sounds: files of assets/examples
        {"job": {"prompt": "a hand bell rings", "sound": "beeps_rising.flac", "start": 0.9, "end": 2.0, "seed": 1},
         "arms": [{"method": "ezaudio", "knobs": {"scale": 3.5, "rescale": 0.0}}]},
        {"job": {"prompt": "a clock ticks, then a crow caws", "sound": "clock.flac", "start": 1.3, "end": 2.5, "seed": 2}, "arms": [{"method": "ezaudio"}]},
    ),
)  # fmt: skip
