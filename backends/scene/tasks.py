"""The tasks of the 3D tabs."""

from dataclasses import dataclass
from typing import Annotated

from backends.spec import Job, Mesh, Prompt, Shape, Task


@dataclass(frozen=True)
class MakeObject(Job):
    prompt: Annotated[str, Prompt(300, help="one object, as in “a red horse wearing a party hat”")] = ""


@dataclass(frozen=True)
class EditObject(Job):
    shape: Annotated[Mesh | None, Shape(help="one of the studio's objects, or your own: GLB, OBJ or PLY")] = None
    source: Annotated[str, Prompt(300, help="what it is, as in “a cactus”")] = ""
    prompt: Annotated[str, Prompt(300, help="what it shall be, as in “a cactus wearing a party hat”")] = ""


MAKE_OBJECT = Task(
    "make_object", "Make an object", MakeObject, baseline="sds", model="objects-ldm", pictures=False, metrics="backends.metrics.objects:made",
    help="From words alone a 3D object appears, pulled view by view by a model of pictures.",
    examples=(
        {"job": {"prompt": "a cactus wearing a party hat", "seed": 1}, "arms": [{"method": "sds"}, {"method": "stabledreamer"}]},
        {"job": {"prompt": "a snowman", "seed": 1}, "arms": [{"method": "stabledreamer"}]},
        {"job": {"prompt": "a horse wearing a party hat", "seed": 1}, "arms": [{"method": "stabledreamer"}, {"method": "stabledreamer", "knobs": {"geometry": 0.5}}]},
        {"job": {"prompt": "a striped birthday cake", "seed": 1}, "arms": [{"method": "stabledreamer"}, {"method": "stabledreamer", "knobs": {"annealed": False}}]},
        {"job": {"prompt": "a red bus", "seed": 2}, "arms": [{"method": "sds"}, {"method": "stabledreamer", "knobs": {"form": "voxels"}}]},
    ),
)  # fmt: skip

EDIT_OBJECT = Task(
    "edit_object", "Edit an object", EditObject, baseline="sds_edit", model="objects-ldm", pictures=False, metrics="backends.metrics.objects:edited",
    help="An object is captured from all sides and changed until a model of pictures sees in it what the words say.",
    examples=(
        {"job": {"shape": "cactus", "source": "a cactus", "prompt": "a cactus wearing a party hat", "seed": 1},
         "arms": [{"method": "sds_edit"}, {"method": "voxe"}, {"method": "ednerf"}]},
        {"job": {"shape": "teddy bear", "source": "a teddy bear", "prompt": "a teddy bear wearing a crown", "seed": 1}, "arms": [{"method": "ednerf"}]},
        {"job": {"shape": "snowman", "source": "a snowman", "prompt": "a golden snowman", "seed": 1}, "arms": [{"method": "voxe"}, {"method": "ednerf"}]},
        {"job": {"shape": "horse", "source": "a horse", "prompt": "a rainbow horse", "seed": 1},
         "arms": [{"method": "ednerf"}, {"method": "ednerf", "knobs": {"score": "SDS"}}]},
    ),
)  # fmt: skip
