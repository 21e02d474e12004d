"""The tasks of the 3D tabs."""

from dataclasses import dataclass
from typing import Annotated

from backends.spec import Job, Prompt, Task


@dataclass(frozen=True)
class MakeObject(Job):
    prompt: Annotated[str, Prompt(300, help="one object, as in “a red horse wearing a party hat”")] = ""


MAKE_OBJECT = Task(
    "make_object", "Make an object", MakeObject, baseline="sds", model="emoji-ldm", pictures=False, ready=False,  # until a prior that knows sides is trained
    help="From words alone a 3D object appears, pulled view by view by a model of pictures.",
    examples=(
        {"job": {"prompt": "a cactus wearing a party hat", "seed": 1}, "arms": [{"method": "sds"}]},
        {"job": {"prompt": "a horse", "seed": 1}, "arms": [{"method": "sds"}]},
    ),
)  # fmt: skip
