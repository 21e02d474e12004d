"""The autoregressive baselines: one token after another with a KV cache, by SmolLM2-135M-Instruct or by the embedded model's twin."""

from backends import embedded
from backends.lazy import torch
from backends.registry import method
from backends.spec import Events, Metric, Note, Result, Step, Tokens
from backends.text import smollm
from backends.text.canvas import predict
from backends.text.decoding import Temperature
from backends.text.tasks import WRITE_TEXT, WriteText


def left_to_right(job: WriteText, model, net, tokenizer, ids, temperature: float) -> Events:
    """Go on from `ids` (1, N) until the end token stands or the answer is as long as asked for."""
    cache, made, sure, past, before = None, [], [], [], model.nfe
    while len(made) < job.length:
        out = net(input_ids=ids, past_key_values=cache, use_cache=True)
        model.nfe += 1
        token, confidence = predict(out.logits[0, -1].float(), temperature)
        made.append(int(token)), sure.append(round(float(confidence), 3))
        cache, ids = out.past_key_values, torch.tensor([[made[-1]]], device=ids.device)
        pieces = tuple("∎" if t == tokenizer.eos_token_id else tokenizer.decode([t]) for t in made)
        rest, text = job.length - len(made), tokenizer.decode(made, skip_special_tokens=True)
        past.append(Tokens((*pieces, *[""] * rest), (*sure, *[0.0] * rest), "k" * (len(made) - 1) + "n" + "m" * rest, text))
        yield Step(len(made), job.length, past[-1])
        if made[-1] == tokenizer.eos_token_id:
            break
    yield Metric("tokens per NFE", len(made) / (model.nfe - before), "higher")
    yield Result(Tokens(past[-1].pieces, past[-1].confidence, past[-1].marks, past[-1].text, tuple(past)))


@method("smollm_ar", task=WRITE_TEXT, needs={"text"}, paper=False, prepare=lambda model, **_: smollm.load())
def smollm_ar(job: WriteText, model, temperature: Temperature = 0.0) -> Events:
    """SmolLM2, token by token.

    An ordinary language model of 135 million parameters writes the answer from left to right: one evaluation a token, each
    costing one token's work, for its keys and values are kept.

    Allal et al., arXiv 2502.02737. It was not trained on this studio's problems, unlike the diffusion model beside it.
    """
    yield Note("SmolLM2 (135 M, from its package) writes here, whichever model is chosen; it has never seen this studio's problems.")
    net, tokenizer = smollm.load()
    asked = tokenizer.apply_chat_template([{"role": "user", "content": job.prompt}], tokenize=False, add_generation_prompt=True)
    yield from left_to_right(job, model, net, tokenizer, tokenizer(asked, return_tensors="pt")["input_ids"], temperature)


@method("twin_ar", task=WRITE_TEXT, needs={"text", "twin"}, paper=False, prepare=lambda model, **_: embedded.load_twin())
def twin_ar(job: WriteText, model, temperature: Temperature = 0.0) -> Events:
    """The autoregressive twin, token by token.

    The same layers, tokens and problems as the diffusion model beside it, but taught to read from left to right: what the order of
    writing alone makes.

    EDLM's autoregressive energy in our text world (train/text_twin.py).
    """
    net, tokenizer = embedded.load_twin()
    yield from left_to_right(job, model, net, tokenizer, model.encode(job.prompt, job.length)[None], temperature)
