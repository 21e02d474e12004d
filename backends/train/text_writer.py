"""Teach SmolLM2-135M to fill in masks: the text world's writer.

    python -m backends.train.text_writer --minutes 60

The package's 4-bit weights stay as they are; trained are low-rank adapters of all layers (lora.py) and the embeddings of the tokens
that are ours. Attention looks both ways from the start, and a position's states go on speaking of the next token, as in the model it
is made from: DiffuLLaMA's shift (Gong et al., arXiv 2410.17891, section 3). Kept is adapter.safetensors, a few MB, from which training
also goes on.
"""

from functools import partial

from backends.embedded import text_tokenizer, writer_base
from backends.train.common import arguments
from backends.train.lora import adapted, save
from backends.train.text_mdm import WRITER, Corpus, diffusion_loss, fit


def main() -> None:
    # A rank of 15 keeps the adapter under the 9.5 MB of a committed file.
    args = arguments("text-writer", lr=4e-4, tokens=512, ema=0.995, rank=15, tested=12)
    file = args.out / "adapter.safetensors"
    fit(args, adapted(writer_base(), args.rank, file), Corpus(text_tokenizer()), WRITER, lambda net: save(net, file), partial(diffusion_loss, shift=True))


if __name__ == "__main__":
    main()
