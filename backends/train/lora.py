"""Adapters of a frozen language model: a change of low rank and the embeddings of the tokens that are ours, kept as `adapter.apply` reads them."""

import torch
from safetensors.torch import load_file, save_file

from backends.nets.smollm_start import SPECIAL
from backends.text.adapter import ROWS, kept, low_rank

EMBEDDINGS = "model.embed_tokens.weight"


def adapted(net, rank: int, file=None):
    """The network with a change of low rank in its layers, which with the special tokens' embeddings alone is trained; as `file` kept them."""
    low_rank(net, rank)
    for name, p in net.named_parameters():
        if name.endswith(".down"):
            torch.nn.init.kaiming_uniform_(p, a=5**0.5)  # as peft, which trained what is committed, begins
    table = net.get_input_embeddings().weight.requires_grad_(True)
    ours = torch.zeros(len(table), 1)
    ours[: len(SPECIAL)] = 1
    table.register_hook(lambda gradient: gradient * ours.to(gradient))
    if file and file.exists():
        restore(net, file)
    return net


def save(net, file) -> None:
    """Write what adapter.apply reads, fp16."""
    rows = net.get_input_embeddings().weight[: len(SPECIAL)].detach().half().contiguous()
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(kept(net) | {EMBEDDINGS + ROWS: rows}, file)


def restore(net, file) -> None:
    mine = dict(net.named_parameters())
    with torch.no_grad():
        for name, value in load_file(file).items():
            if name.endswith(ROWS):
                mine[name.removesuffix(ROWS)][: len(value)] = value.float()
            else:
                mine[name.replace(".weight.", ".")].copy_(value)
