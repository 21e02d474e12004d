"""The tasks of the image tabs."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from backends.spec import Choice, Job, Picture, Prompt, Slider, Task, Toggle


@dataclass(frozen=True)
class TextToImage(Job):
    prompt: Annotated[str, Prompt(1000, help="objects, how many, where, on what background")] = ""
    negative: Annotated[str, Prompt(1000, required=False, help="what the picture should not show")] = ""


@dataclass(frozen=True)
class EditImage(Job):
    """What the result must agree with. Conditions join: colour and enlarge together take a small grey picture."""

    image: Annotated[np.ndarray | None, Picture(help="the picture to condition on")] = None
    mask: Annotated[np.ndarray | None, Picture(required=False, mask_of="image", help="paint what is to be made anew")] = None
    prompt: Annotated[str, Prompt(1000, required=False, help="what the result should show")] = ""
    fill: Annotated[bool, Toggle(help="keep what is not painted, make the painted part anew")] = True
    colour: Annotated[bool, Toggle(help="take only the picture's brightness, make its colours anew")] = False
    enlarge: Annotated[str, Choice(("off", "2", "4", "8"), help="take the picture this many times smaller, make its detail anew")] = "off"
    keep: Annotated[float, Slider(0, 0.9, 0.05, help="start from the picture with less noise; 0 starts from noise alone")] = 0.0


@dataclass(frozen=True)
class FindFailures(Job):
    prompt: Annotated[str, Prompt(1000, help="one object, such as “a cat”")] = ""


TEXT_TO_IMAGE = Task(
    "text_to_image", "Text to image", TextToImage, baseline="ddim", model="emoji-ldm",
    metrics="backends.metrics.image:text_to_image",
    help="One prompt and one seed; each arm denoises them its own way.",
    examples=(
        {"job": {"prompt": "a penguin on snow", "seed": 3}, "arms": [{"method": "ddim"}, {"method": "adaptive_guidance"}]},
        {"job": {"prompt": "a big strawberry on a light blue background", "seed": 1}, "arms": [{"method": "ddim"}, {"method": "faster_diffusion"}]},
        {"job": {"prompt": "a sunflower on green grass under a blue sky", "seed": 7},
         "arms": [{"method": "ddim", "knobs": {"scale": 1.0}}, {"method": "ddim", "knobs": {"scale": 5.5}}, {"method": "w2sd"}, {"method": "w2sd", "knobs": {"reverse": True}}]},
        {"job": {"prompt": "a cat next to a cactus on a yellow background", "seed": 1}, "arms": [{"method": "ddim"}, {"method": "adaptive_guidance"}]},
        {"job": {"prompt": "a penguin on snow", "seed": 3}, "arms": [{"method": "ddim"}, {"method": "sds_picture"}, {"method": "sds_picture", "knobs": {"scale": 25.0}}]},
        {"job": {"prompt": "a dog and a pizza on green grass under a blue sky", "seed": 4}, "arms": [{"method": "ddim"}, {"method": "astar"}]},
    ),
)  # fmt: skip

EDIT_IMAGE = Task(
    "edit_image", "Condition on an image", EditImage, baseline="unsteered", model="emoji-ldm",
    metrics="backends.metrics.image:edit_image",
    help="Fill a painted hole, colour a grey picture, enlarge a small one, or change what is shown.",
    examples=(  # pictures: files of assets/examples
        {"job": {"image": "cat_room.png", "mask": "cat_room_mask.png", "prompt": "a cat next to a strawberry on a brown floor against a teal wall", "seed": 2},
         "arms": [{"method": "unsteered"}, {"method": "steered"}]},
        {"job": {"image": "dog_grass.png", "fill": False, "colour": True, "prompt": "a dog on green grass under a blue sky", "seed": 1},
         "arms": [{"method": "unsteered"}, {"method": "steered"}]},
        {"job": {"image": "owl_purple.png", "fill": False, "enlarge": "4", "prompt": "an owl on a purple background", "seed": 0},
         "arms": [{"method": "noisy_critic"}, {"method": "steered"}]},
        {"job": {"image": "dog_grass.png", "fill": False, "colour": True, "enlarge": "2", "prompt": "a dog on green grass under a blue sky", "seed": 3},
         "arms": [{"method": "noisy_critic"}, {"method": "steered"}]},
        {"job": {"image": "cat_room.png", "mask": "cat_room_mask.png", "prompt": "a cat next to a strawberry", "seed": 2},
         "arms": [{"method": "steered", "knobs": {"agree": 0.0}}, {"method": "steered", "knobs": {"agree": 1.0}}]},
        {"job": {"image": "apple_blue.png", "fill": False, "keep": 0.3, "prompt": "a green apple on a light blue background", "seed": 0},
         "arms": [{"method": "unsteered"}, {"method": "steered", "knobs": {"agree": 1.0}}]},
        {"job": {"image": "apple_blue.png", "fill": False, "enlarge": "8", "prompt": "a red apple on a light blue background", "seed": 0},
         "arms": [{"method": "unsteered"}, {"method": "steered"}]},
    ),
)  # fmt: skip

FIND_FAILURES = Task(
    "find_failures", "Find failures", FindFailures, baseline="random_search", model="emoji-ldm",
    metrics="backends.metrics.image:find_failures",
    help="Search the noise or the words for inputs on which the model fails.",
    examples=(
        {"job": {"prompt": "a strawberry", "seed": 2}, "arms": [{"method": "random_search"}, {"method": "sage"}]},
        {"job": {"prompt": "a cat", "seed": 0}, "arms": [{"method": "sage", "knobs": {"mode": "words"}}]},
    ),
)  # fmt: skip
