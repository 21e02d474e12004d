"""Arbitrary-scale generation: one latent, any size, on the tiny picture model."""

import numpy as np
import torch

from backends.image import any_size
from backends.image.tasks import TextToImage
from backends.nets.emoji_liif import EmojiLiif, resized
from backends.spec import Images, Result


def result(model, **knobs) -> Result:
    with torch.no_grad():
        return list(any_size.any_size(TextToImage(prompt="a cat next to a cactus", seed=3), model, {}, steps=2, **knobs))[-1]


def test_the_cost_of_diffusion_does_not_know_the_size(tiny):
    for times, side in ((0.5, 64), (1.0, 128), (2.3, 294)):
        tiny.nfe = 0
        end = result(tiny, times=times)
        assert end.value.pixels.shape == (side, side, 3) and tiny.nfe == 4
    zooms = next(m for m in end.aside if isinstance(m, Images))
    assert [i.caption for i in zooms.items] == ["×1", "×2", "×4", "×8"] and all(i.pixels.shape[0] <= 192 for i in zooms.items)


def test_a_window_is_a_part_of_the_whole(tiny):
    made = any_size.AnySize(tiny, tiny.noise(1), True)
    whole = made.pixels(2.0)
    assert np.abs(made.pixels(2.0, 100).astype(int) - whole[78:178, 78:178]).max() <= 1
    plain = any_size.AnySize(tiny, tiny.noise(1), False)
    assert np.array_equal(plain.pixels(1.0), tiny.picture(tiny.noise(1))) and not np.array_equal(plain.pixels(2.0), whole)


def test_an_untaught_decoder_is_the_plain_one_brought_to_size(tiny):
    net, z = EmojiLiif(32, 16), tiny.noise(2)
    wanted = tiny.to_pixels(z)
    assert torch.allclose(net(tiny.vae, z, (128, 128)), wanted, atol=1e-5)
    assert torch.allclose(net(tiny.vae, z, (200, 200)), resized(wanted, (200, 200)), atol=1e-5)
