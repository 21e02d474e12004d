"""The tasks of the text tabs."""

from dataclasses import dataclass
from typing import Annotated

from backends.spec import Job, Prompt, Slider, Task


@dataclass(frozen=True)
class WriteText(Job):
    prompt: Annotated[str, Prompt(2000, help="a question of the text world (see the examples), or a story's topic")] = ""
    length: Annotated[int, Slider(8, 256, 8, help="tokens of the answer")] = 32


WRITE_TEXT = Task(
    "write_text", "Write text", WriteText, baseline="low_confidence", model="text-mdm",
    metrics="backends.metrics.text:write_text",
    help="A masked answer fills in token by token; each arm decides its own way which tokens come first.",
    examples=(
        {"job": {"prompt": "37 + 5 - 12 =", "length": 8}, "arms": [{"method": "low_confidence"}, {"method": "dlm_survey"}]},
        {"job": {"prompt": "sudoku 4_1_ _2__ 2__1 __4_", "length": 32}, "arms": [{"method": "low_confidence"}, {"method": "dlm_survey"}]},
        {"job": {"prompt": "make 24 from 3, 5, 9", "length": 16}, "arms": [{"method": "low_confidence"}, {"method": "dlm_survey"}]},
        {"job": {"prompt": "a story about a fox and a lantern", "length": 64}, "arms": [{"method": "low_confidence"}, {"method": "dlm_survey"}]},
    ),
)  # fmt: skip
