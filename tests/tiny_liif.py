"""The emoji world's decoder for any size, with the real class, for the tiny picture model."""


def tiny():
    import torch

    from backends.nets.emoji_liif import EmojiLiif

    torch.manual_seed(0)
    net = EmojiLiif(32, 16).eval().requires_grad_(False)
    torch.nn.init.normal_(net.rest[-1].weight, std=0.1)
    return lambda: net
