"""Teach the text world's masked diffusion model to read from left to right: its autoregressive twin.

    python -m backends.train.text_twin --minutes 40

EDLM weighs candidates by an autoregressive model of the denoiser's own tokens (Xu et al., arXiv 2410.21357, section 4.1). Trained are
low-rank adapters (lora.py) of the denoiser's layers under causal attention, on the answers' tokens of the same corpus. Kept is
adapter.safetensors.
"""

import torch

from backends import models
from backends.embedded import causal
from backends.train.common import arguments, autocast
from backends.train.lora import adapted, save
from backends.train.text_mdm import MIX, Corpus, fit


def next_token_loss(net, ids, may, mask: int, levels, device: str) -> torch.Tensor:
    """(B,) mean −log p(token | all before it) over the answer's tokens, in nats; `mask` and `levels` are the diffusion loss's and go unused."""
    with autocast(device):
        states = net.model(input_ids=ids).last_hidden_state[:, :-1]
        logits = net.lm_head(states[may[:, 1:]])
    lost = torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][may[:, 1:]], reduction="none")
    return torch.zeros(ids[:, 1:].shape, device=ids.device).masked_scatter(may[:, 1:], lost).sum(1) / may.sum(1).clamp_min(1)


def main() -> None:
    args = arguments("text-twin", lr=1e-3, tokens=1024, ema=0.995, rank=64, tested=48)
    model, file = models.load("text-mdm"), args.out / "adapter.safetensors"
    fit(args, adapted(causal(model.net), args.rank, file), Corpus(model.tokenizer), MIX, lambda net: save(net, file), next_token_loss)


if __name__ == "__main__":
    main()
