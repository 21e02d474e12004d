"""Low-rank adapters of a frozen language model (LoRA: Hu et al., arXiv 2106.09685), kept as `backends/text/adapter.py` reads them.

pip install peft==0.18.0      # for the scripts that train adapters alone
"""

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from backends.nets.smollm_start import SPECIAL
from backends.text.adapter import ROWS

EMBEDDINGS = "model.embed_tokens.weight"
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapted(net, rank: int, file=None):
    """The network with LoRA in its layers, whose up and down matrices and special tokens' embeddings alone are trained; as `file` kept them."""
    net = get_peft_model(net, LoraConfig(r=rank, lora_alpha=rank, target_modules=LAYERS)).base_model.model
    table = net.get_input_embeddings().weight.requires_grad_(True)
    ours = torch.zeros(len(table), 1)
    ours[: len(SPECIAL)] = 1
    table.register_hook(lambda gradient: gradient * ours.to(gradient))
    if file and file.exists():
        restore(net, file)
    return net


def save(net, file) -> None:
    """Write what adapter.apply reads, fp16."""
    found = {EMBEDDINGS + ROWS: net.get_input_embeddings().weight[: len(SPECIAL)]}
    for name, p in net.named_parameters():
        if "lora_A" in name:
            found[name.replace("lora_A.default.weight", "weight.down")] = p
        elif "lora_B" in name:
            found[name.replace("lora_B.default.weight", "weight.up")] = p
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().half().contiguous() for k, v in found.items()}, file)


def restore(net, file) -> None:
    saved, mine = load_file(file), dict(net.named_parameters())
    with torch.no_grad():
        for name, value in saved.items():
            if name.endswith(ROWS):
                mine[name.removesuffix(ROWS)][: len(value)] = value.float()
            else:
                mine[name.replace("weight.down", "lora_A.default.weight").replace("weight.up", "lora_B.default.weight")].copy_(value)
