"""The tasks of the text tabs."""

from dataclasses import dataclass
from typing import Annotated

from backends.spec import Choice, Job, Prompt, Slider, Task
from backends.text.forms import fields_of


@dataclass(frozen=True)
class WriteText(Job):
    prompt: Annotated[str, Prompt(2000, help="a problem of the text world, written as in the examples")] = ""
    length: Annotated[int, Slider(4, 256, 4, help="tokens of the answer; a sudoku takes 20, a sum 8")] = 32


WRITE_TEXT = Task(
    "write_text", "Write text", WriteText, baseline="low_confidence", model="text-mdm",
    metrics="backends.metrics.text:write_text", pictures=False,
    help="A masked answer fills in token by token; each arm decides its own way which tokens come first.",
    examples=(
        {"job": {"prompt": "sudoku 1432 3_14 412_ __41", "length": 20}, "arms": [{"method": "low_confidence"}, {"method": "dlm_survey"}]},
        {"job": {"prompt": "37 + 5 - 12 =", "length": 8}, "arms": [{"method": "low_confidence"}, {"method": "dlm_survey"}]},
        {"job": {"prompt": "make 24 from 3, 5, 9", "length": 16}, "arms": [{"method": "low_confidence"}, {"method": "dlm_survey"}]},
        {"job": {"prompt": "red box: 4821. blue door: 1177. golden key: 9034. what is blue door?", "length": 8},
         "arms": [{"method": "low_confidence"}, {"method": "smollm_ar"}]},
        {"job": {"prompt": "make 30 from 4, 6, 6", "length": 16}, "arms": [{"method": "rcr", "knobs": {"steps": 8}}, {"method": "edlm", "knobs": {"steps": 8}}]},
    ),
)  # fmt: skip


@dataclass(frozen=True)
class FillForm(Job):
    text: Annotated[str, Prompt(4000, help="what the values are to be taken from")] = ""
    form: Annotated[str, Prompt(4000, help="a JSON Schema of an object, or its fields' names separated by commas")] = ""

    def __post_init__(self):
        fields_of(self.form)  # a form that can't be read is refused once, not by each arm


FILL_FORM = Task(
    "fill_form", "Fill a form", FillForm, baseline="free_form", model="text-mdm", metrics="backends.metrics.text:fill_form", pictures=False,
    help="A text, and the fields to fill from it; what the text does not say must stay empty.",
    examples=(
        {"job": {"text": "Greta Rossi is 41 years old. Greta works as a baker. Home is Lisbon.", "form": "name, age, job, city"},
         "arms": [{"method": "free_form"}, {"method": "s3"}]},
        {"job": {"text": "This is Hugo Tanaka. On Sundays it is chess. Hugo has a parrot.", "form": "name, pet, hobby, city, age"},
         "arms": [{"method": "s3", "knobs": {"null": False}}, {"method": "s3"}]},
        {"job": {"text": "Maria Silva lives in Oslo. Maria loves sailing.",
                 "form": '{"type": "object", "properties": {"name": {"type": "string"}, "city": {"type": "string"}, "age": {"type": "integer"}}}'},
         "arms": [{"method": "free_form"}, {"method": "s3"}]},
    ),
)  # fmt: skip


@dataclass(frozen=True)
class FindNeedle(Job):
    reach: Annotated[float, Slider(1, 8, 0.5, help="length of the longest notes, in lengths the model was trained on (embedded: 128 tokens)")] = 3.0
    needles: Annotated[int, Slider(1, 8, 1, help="notes tried in each cell of the map")] = 2


FIND_NEEDLE = Task(
    "find_needle", "Find a needle", FindNeedle, baseline="unscaled", model="text-notes", pictures=False,
    help="Notes of growing length with a key to look up, early or late in them: which can the model still find?",
    examples=({"job": {"reach": 3.0, "needles": 1, "seed": 0}, "arms": [{"method": "unscaled"}, {"method": "longllada", "knobs": {"factor": 2.0}}, {"method": "twin_needle"}]},),
)  # fmt: skip


@dataclass(frozen=True)
class TrainText(Job):
    problem: Annotated[str, Choice(("sum", "countdown", "sudoku", "recall"), help="what the model is rewarded for")] = "sum"
    updates: Annotated[int, Slider(1, 100, 1, help="steps of the optimiser, each on answers drawn anew")] = 16
    prompts: Annotated[int, Slider(2, 16, 1, help="problems for each update")] = 8
    answers: Annotated[int, Slider(2, 16, 1, help="answers to each")] = 8


TRAIN_TEXT = Task(
    "train_text", "Reward training", TrainText, baseline="random_masks", model="text-mdm", pictures=False,
    help="Reinforcement learning on checkable problems, live: a copy of the model is trained, the studio's own stays as it is.",
    examples=({"job": {"problem": "sum", "updates": 16, "prompts": 8, "answers": 8, "seed": 0}, "arms": [{"method": "random_masks"}, {"method": "tracerl"}, {"method": "mdpo"}]},),
)  # fmt: skip
