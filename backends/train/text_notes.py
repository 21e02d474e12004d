"""Teach the text world's masked diffusion model to look keys up wherever they stand and however notes are written.

    python -m backends.train.text_notes --minutes 20

LongLLaDA stretches the rotary angles, so that a model which finds a value by counting a fixed number of tokens from its key loses it.
These notes are written in many ways, with sentences between them, and fill the trained length; two fifths of what is trained on
stay the corpus of text_mdm. Kept is adapter.safetensors on top of its weights.
"""

from backends import models
from backends.train.common import arguments
from backends.train.lora import adapted, save
from backends.train.text_mdm import MIX, Corpus, fit

SHARES = {kind: 0.4 * share for kind, share in MIX.items()} | {"notes": 0.6}


def main() -> None:
    args = arguments("text-notes", lr=6e-4, tokens=1024, ema=0.995, rank=32, tested=48)
    model, file = models.load("text-mdm"), args.out / "adapter.safetensors"
    fit(args, adapted(model.net, args.rank, file), Corpus(model.tokenizer), SHARES, lambda net: save(net, file))


if __name__ == "__main__":
    main()
