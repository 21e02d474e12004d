"""The autoregressive baseline: SmolLM2-135M-Instruct, one token after another with a KV cache."""

from backends.lazy import torch
from backends.registry import method
from backends.spec import Events, Metric, Note, Result, Step, Tokens
from backends.text.canvas import predict
from backends.text.decoding import Temperature
from backends.text.smollm import smollm
from backends.text.tasks import WRITE_TEXT, WriteText


@method("smollm_ar", task=WRITE_TEXT, needs={"text"}, paper=False)
def smollm_ar(job: WriteText, model, temperature: Temperature = 0.0) -> Events:
    """SmolLM2, token by token.

    An ordinary language model of 135 million parameters writes the answer from left to right: one evaluation a token, each
    costing one token's work, for its keys and values are kept.

    Allal et al., arXiv 2502.02737. It was not trained on this studio's problems, unlike the diffusion model beside it.
    """
    yield Note("SmolLM2 (135 M, from its package) writes here, whichever model is chosen; it has never seen this studio's problems.")
    net, tokenizer = smollm()
    asked = tokenizer.apply_chat_template([{"role": "user", "content": job.prompt}], tokenize=False, add_generation_prompt=True)
    ids, cache, made, sure, past = tokenizer(asked, return_tensors="pt")["input_ids"], None, [], [], []
    while len(made) < job.length:
        out = net(input_ids=ids, past_key_values=cache, use_cache=True)
        model.nfe += 1
        token, confidence = predict(out.logits[0, -1].float(), temperature)
        made.append(int(token)), sure.append(round(float(confidence), 3))
        cache, ids = out.past_key_values, torch.tensor([[made[-1]]])
        pieces = tuple("∎" if t == tokenizer.eos_token_id else tokenizer.decode([t]) for t in made)
        rest, text = job.length - len(made), tokenizer.decode(made, skip_special_tokens=True)
        past.append(Tokens((*pieces, *[""] * rest), (*sure, *[0.0] * rest), "k" * (len(made) - 1) + "n" + "m" * rest, text))
        yield Step(len(made), job.length, past[-1])
        if made[-1] == tokenizer.eos_token_id:
            break
    yield Metric("tokens per NFE", 1.0, "higher")
    yield Result(Tokens(past[-1].pieces, past[-1].confidence, past[-1].marks, past[-1].text, tuple(past)))
