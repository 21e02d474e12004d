"""The tasks of the audio tab."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from backends.spec import Audio, BadInput, Job, Prompt, Slider, Sound, Task


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
    ),
)  # fmt: skip


@dataclass(frozen=True)
class EnhanceSpeech(Job):
    """`clean`: the same sentence without its noise, at any rate; only the figures look at it."""

    sound: Annotated[Audio | None, Sound(longest=60.0, help="speech in noise or in a room, at any rate")] = None
    clean: Annotated[Audio | None, Sound(required=False, longest=60.0, help="the same without noise, for the figures alone")] = None

    def __post_init__(self):
        if self.sound is not None and not np.abs(self.sound.samples).max(initial=0) > 1e-4:  # refused once, not by each arm
            raise BadInput("The sound is silent; there is no speech to enhance.")
        if self.sound is not None and self.clean is not None and abs(self.sound.seconds - self.clean.seconds) > 0.1:
            raise BadInput(f"The clean sound lasts {self.clean.seconds:.1f} s and the noisy one {self.sound.seconds:.1f} s; they must be of one length.")


ENHANCE_SPEECH = Task(
    "enhance_speech", "Enhance speech", EnhanceSpeech, baseline="sgmse", model="speech",
    metrics="backends.metrics.speech:enhance_speech", pictures=False,
    help="Speech in noise or in a room; each arm brings the voice back its own way. With the clean sound beside it, the figures say how well.",
    examples=(
        {"job": {"sound": "speech_till.flac", "clean": "speech_till_clean.flac"}, "arms": [{"method": "predictive"}, {"method": "sgmse"}, {"method": "storm"}]},
        {"job": {"sound": "speech_cow_room.flac", "clean": "speech_cow_room_clean.flac"},
         "arms": [{"method": "storm", "knobs": {"steps": 3}}, {"method": "storm"}, {"method": "storm", "knobs": {"steps": 30}}]},
        {"job": {"sound": "speech_babble.flac", "clean": "speech_babble_clean.flac"},
         "arms": [{"method": "rnnoise"}, {"method": "nsnet2"}, {"method": "deepfilternet"}, {"method": "storm"}]},
    ),
)  # fmt: skip
