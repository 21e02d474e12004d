"""The survey's inference taxonomy as one method with a setting for each branch; and LLaDA's decoder, the baseline."""

from typing import Annotated

from backends.registry import method
from backends.spec import BadInput, Choice, Events, Metric, Note, Result, Slider, Step, Toggle
from backends.text.canvas import ORDERS, Canvas
from backends.text.decoding import Block, BlockCache, Reader, Rule, Steps, Temperature, decode
from backends.text.feature_cache import FeatureCache
from backends.text.tasks import WRITE_TEXT, WriteText
from backends.worlds import text

EndsLast = Annotated[bool, Toggle(help="end tokens wait until no word is left to reveal")]
Cache = Annotated[
    str,
    Choice(("off", "prefix", "dual", "features"), help="what is reused: the keys and values before a block, or also behind it, or of tokens that hardly move"),
]


def filled(job: WriteText, model, read: Reader, rule: Rule, steps: int, block: int, temperature: float, canvas: Canvas | None = None) -> Events:
    """Decode the job's answer and say what it cost."""
    canvas = canvas or Canvas.after(model, model.encode(job.prompt, job.length), job.length)
    if model.card.embedded and not text.kind_of(job.prompt):
        yield Note("The embedded model knows sums, countdowns, sudokus, notes and forms as in the examples; this prompt is none of them, so expect nonsense.")
    if (trained := getattr(getattr(model.net, "config", None), "max_position_embeddings", 0)) and len(canvas.ids) > trained:
        yield Note(f"Prompt and answer take {len(canvas.ids)} tokens, more than the {trained} that {model.card.title} was trained on: expect it to fail.")
    before, i = model.nfe, 0
    for i, n in decode(canvas, read, rule, steps, block or model.block or job.length, temperature):
        yield Step(i, n, canvas.show())
    spent = max(1, model.nfe - before)
    yield Metric("tokens per NFE", canvas.written() / spent, "higher")
    if read.computed < read.asked:
        yield Metric("tokens reused (%)", 100 * (1 - read.computed / read.asked), "higher")
    yield Result(canvas.final())


def late(model, ends_last: bool) -> tuple[int, ...]:
    return model.ends if ends_last else ()


@method("low_confidence", task=WRITE_TEXT, needs={"text", "masked"}, paper=False)
def low_confidence(job: WriteText, model, steps: Steps = 64, block: Block = 0, temperature: Temperature = 0.0, ends_last: EndsLast = True) -> Events:
    """Low-confidence remasking (LLaDA).

    At each step every masked token is predicted and the surest ones are kept; the others are masked again for the next step.

    Nie et al., arXiv 2502.09992, section 2.4 and, for the end tokens, appendix B.4; the order is MaskGIT's (Chang et al.,
    arXiv 2202.04200).
    """
    return filled(job, model, Reader(model), Rule(late=late(model, ends_last)), steps, block, temperature)


@method("dlm_survey", task=WRITE_TEXT, needs={"text", "masked"})
def dlm_survey(
    job: WriteText, model, order: Annotated[str, Choice(ORDERS, help="under “steps”: which masked tokens come first")] = "confidence",
    commit: Annotated[str, Choice(("steps", "threshold", "factor"), help="how many come in a step: an even share, or all that are sure enough")] = "threshold",
    steps: Annotated[int, Slider(1, 256, 1, help="under “steps”: evaluations; each reveals an even share")] = 64, threshold: Annotated[float, Slider(0, 1.01, 0.01, help="sure enough, under “threshold”; above 1 reveals one a step")] = 0.9,
    factor: Annotated[float, Slider(0.1, 4, 0.1, help="under “factor”: larger reveals more")] = 1.0,
    block: Block = 0, cache: Cache = "off", refresh: Annotated[int, Slider(1, 64, 1, help="with a cache: steps until it is made anew")] = 8,
    prompt_refresh: Annotated[int, Slider(1, 256, 1, help="under “features”: steps until the prompt's part is made anew")] = 32, share: Annotated[float, Slider(0, 1, 0.05, help="under “features”: tokens of the answer computed in between, those that moved most")] = 0.25,
    guidance: Annotated[float, Slider(0, 4, 0.1, help="strength of the prompt; 0 costs one evaluation a step, else two")] = 0.0,
    temperature: Temperature = 0.0, ends_last: EndsLast = True,
) -> Events:  # fmt: skip
    """Diffusion language models: the survey's decoders.

    One model, every way to decode it that the survey sorts out: which tokens come first, how many at once, in blocks or not,
    what is reused between steps, and how strongly the prompt steers.

    Li et al., A Survey on Diffusion Language Models, arXiv 2508.10875, section 4. Orders: random, confidence, margin and
    entropy as in Dream (Ye et al., arXiv 2508.15487); "threshold", "factor" and the prefix and dual caches are Fast-dLLM's
    (Wu et al., arXiv 2505.22618), "features" is dLLM-Cache (Liu et al., arXiv 2506.06295; see feature_cache.py); guidance is
    LLaDA's. Under "prefix" and "dual" the cache lives for a block at most; `refresh` renews it sooner. dLLM-Cache's K_p, K_r and ρ
    are `prompt_refresh`, `refresh` and `share`.
    """
    needed = {"features": "llama", "prefix": "rope", "dual": "rope"}.get(cache)
    if needed and needed not in model.card.capabilities:
        raise BadInput(f"The cache “{cache}” is not made for {model.card.title}; choose “off” or another model.")
    if cache == "features":
        read = FeatureCache(model, guidance, prompt_refresh, refresh, share)
    elif cache == "off":
        read = Reader(model, guidance)
    else:
        read = BlockCache(model, guidance, dual=cache == "dual", refresh=refresh)
    return filled(job, model, read, Rule(order, commit, threshold, factor, late(model, ends_last)), steps, block, temperature)
