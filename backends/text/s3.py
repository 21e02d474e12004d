"""S³: the form's skeleton stands on the canvas from the start, and only the values are written; and free decoding beside it."""

from __future__ import annotations

import json
from typing import Annotated

from backends.lazy import torch
from backends.registry import method
from backends.spec import Events, Metric, Result, Slider, Step, Toggle, Tokens
from backends.text.canvas import Canvas
from backends.text.decoding import Reader, Rule, Steps, decode
from backends.text.forms import asked, fields_of, typed
from backends.text.scaffold import read, scaffold
from backends.text.tasks import FILL_FORM, FillForm

TOLD = "tokens of the form as it came out, keys and braces included, fillers and padding not"
Budget = Annotated[int, Slider(2, 32, 1, help="masked tokens for each field")]


class Filler(Reader):
    """A reader that never writes a quote, a brace or a special token into a slot; without `null`, no filler either."""

    def __init__(self, model, guidance: float, null: bool):
        super().__init__(model, guidance)
        words = [model.piece(i) for i in range(len(model.tokenizer))]
        self.barred = torch.tensor([any(c in w for c in '"\\{}\n') or i in model.special for i, w in enumerate(words)], device=model.device)
        if not null:
            self.barred[list(model.kept)] = True

    def guided(self, logits):
        out = super().guided(logits)
        spare = max(0, out.shape[-1] - len(self.barred))  # rows of the embedding that stand for no token
        return out.masked_fill(torch.nn.functional.pad(self.barred, (0, spare), value=True)[: out.shape[-1]], float("-inf"))


@method("s3", task=FILL_FORM, needs={"text", "masked"})
def s3(
    job: FillForm, model, steps: Steps = 16, budget: Budget = 6,
    null: Annotated[bool, Toggle(help="let a slot be filled with nothing")] = True,
    guidance: Annotated[float, Slider(0, 4, 0.1, help="strength of the prompt; 0 costs one evaluation a step")] = 0.0,
) -> Events:  # fmt: skip
    """S³: self-adaptive schema scaffolding.

    The form's braces, keys and quotes are written on the canvas before it starts; the model fills the slots between them, all
    at once and looking both ways, and may fill what is left of a slot, or all of it, with a token that means nothing.

    Xiong et al., arXiv 2507.04504. As in its released code, pieces are tokenised apart and the surest tokens of all slots come
    first, an even share of the masked ones a step (the code rounds that share up and so may end a step early). Quotes, braces and ends are barred inside slots, so that the result always
    parses; the paper's budget of 16 tokens a field is 6 here, the embedded model's values being short. That model was trained on forms and
    on a token for nothing; others are told of it in the paper's way, in words, and spell it.
    """
    model.sees_all("S³")
    kinds = fields_of(job.form)
    prompt = asked(model, job.text, kinds, null)
    before = model.encode(prompt, budget * len(kinds))
    made = scaffold(model.tokens, model.mask, dict.fromkeys(kinds, budget))
    model.encode(prompt, len(made.ids))  # with its skeleton it must fit as well
    canvas = Canvas(model, torch.cat([before, before.new_tensor(made.ids)]), len(before))
    spent = model.nfe
    for i, n in decode(canvas, Filler(model, guidance, null), Rule(), steps, len(made.ids)):
        yield Step(i, n, canvas.show())
    final = canvas.final()
    values = read(canvas.ids[canvas.start :].tolist(), made.slots, model.tokenizer.decode)
    form = json.dumps({f: typed(values[f], kind) for f, kind in kinds.items()}, ensure_ascii=False)
    yield Metric("tokens per NFE", len(model.tokens(form)) / (model.nfe - spent), "higher", TOLD)
    yield Result(Tokens(final.pieces, final.confidence, final.marks, form, final.past))


@method("free_form", task=FILL_FORM, needs={"text", "masked"}, paper=False)
def free_form(job: FillForm, model, steps: Steps = 64, length: Annotated[int, Slider(16, 128, 8, help="tokens of the answer")] = 64) -> Events:
    """Free decoding of the form.

    The same prompt, filler for what is not said included, and an empty canvas: the model writes braces, keys and values itself, the surest tokens first.
    """
    canvas = Canvas.after(model, model.encode(asked(model, job.text, fields_of(job.form), null=True), length), length)
    spent = model.nfe
    for i, n in decode(canvas, Reader(model), Rule(late=model.ends), steps, model.block or length):
        yield Step(i, n, canvas.show())
    yield Metric("tokens per NFE", len(model.tokens(canvas.final().text)) / (model.nfe - spent), "higher", TOLD)
    yield Result(canvas.final())
