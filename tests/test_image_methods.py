"""Guidance, caching and reflection: the identities they must satisfy, on a tiny model and on a mixture of Gaussians."""

import analytic
import numpy as np
import pytest
import torch

from backends import BadInput, run
from backends.denoiser import together
from backends.image import adaptive_guidance, faster_diffusion, linear_ag, sampling, unet_split, w2sd
from backends.image.deepcache import DeepCache
from backends.spec import Metric, Outcome, Step

PROMPT = "a cat next to a cactus"


def arm(method, stack=(), negative="", **knobs):
    """(pixels, figures, events) of one arm of ten steps at scale 5."""
    knobs = {"steps": 10, "scale": 5.0} | knobs
    job = {"prompt": PROMPT, "negative": negative, "seed": 3}
    events = [e.event for e in run({"task": "text_to_image", "job": job, "arms": [{"method": method, "knobs": knobs, "stack": list(stack)}]})]
    end = events[-1]
    assert isinstance(end, Outcome) and not end.error, end.error
    return end.value.pixels, {e.name: e.value for e in events if isinstance(e, Metric)} | {"nfe": end.nfe}, events


def refusal(method, stack=(), **knobs):
    with pytest.raises(BadInput) as caught:
        arm(method, stack, **knobs)
    return str(caught.value)


# --- the loop itself ---


@pytest.mark.parametrize(("kind", "name"), [("ddim", "DDIMScheduler"), ("euler", "EulerDiscreteScheduler"), ("dpm++", "DPMSolverMultistepScheduler")])
def test_our_loop_equals_diffusers_plain_one(tiny, kind, name):
    import diffusers

    scheduler = sampling.make_scheduler(tiny, kind)
    assert type(scheduler) is getattr(diffusers, name)
    (cond, uncond), noise = tiny.encode(PROMPT, ""), tiny.noise(1)
    with torch.no_grad():
        *_, (ours, _) = sampling.denoise(tiny, cond, uncond, noise, sampling.SchedulerWalk(tiny, 8, kind), sampling.Guided(5.0))
        scheduler.set_timesteps(8)
        x, states = noise * scheduler.init_noise_sigma, torch.cat([uncond.embeds, cond.embeds])
        for t in scheduler.timesteps:
            u, c = tiny.net(scheduler.scale_model_input(torch.cat([x, x]), t), t, encoder_hidden_states=states).sample.chunk(2)
            x = scheduler.step(u + 5.0 * (c - u), t, x).prev_sample
    assert torch.allclose(ours, x, atol=2e-4 * float(x.abs().max()))


def test_a_batch_of_prompts_equals_its_prompts_alone(tiny):
    conds, noise = tiny.encode(PROMPT, "a red apple"), tiny.noise(1, 2)
    uncond = tiny.encode("")[0]

    def go(cond, x):
        with torch.no_grad():
            *_, (z, _) = sampling.denoise(tiny, cond, uncond, x, sampling.SchedulerWalk(tiny, 4, "ddim"), sampling.Guided(5.0))
        return z

    both = go(together(conds), noise)
    for i, cond in enumerate(conds):
        assert torch.allclose(both[i : i + 1], go(cond, noise[i : i + 1]), atol=1e-3)


# --- the UNet taken apart ---


def sdxl_like():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=2, cross_attention_dim=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(2, 4),
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=8 * 6 + 16, use_linear_projection=True,
    ).eval()  # fmt: skip


@pytest.mark.parametrize("side", [8, 10])
def test_encode_and_decode_are_the_forward_of_sdxl(side):
    net = sdxl_like()
    x, states = torch.randn(2, 4, side, side), torch.randn(2, 7, 32)
    added = {"text_embeds": torch.randn(2, 16), "time_ids": torch.randn(2, 6)}
    with torch.no_grad():
        whole = net(x, 300, encoder_hidden_states=states, added_cond_kwargs=added).sample
        skips, mid = unet_split.encode(net, x, 300, states, added)
        assert torch.equal(whole, unet_split.finish(net, unet_split.decode(net, skips, mid, 300, states, added)))


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_the_shallow_branch_on_fresh_deep_features_is_the_forward(depth):
    net, caught = sdxl_like(), []
    x, states = torch.randn(2, 4, 8, 8), torch.randn(2, 7, 32)
    added = {"text_embeds": torch.randn(2, 16), "time_ids": torch.randn(2, 6)}
    resnet, channels = unet_split.deep_input(net, depth)
    hook = resnet.register_forward_pre_hook(lambda _m, args: caught.append(args[0][:, :channels]))
    with torch.no_grad():
        whole = net(x, 300, encoder_hidden_states=states, added_cond_kwargs=added).sample
        hook.remove()
        out = unet_split.finish(net, unet_split.shallow(net, x, 300, states, caught[0], depth, added))
    assert torch.allclose(whole, out, atol=1e-6)


def test_rows_are_known_by_their_text_and_their_turn():
    rows, (a, b) = unet_split.Rows(), torch.randn(2, 3, 4)
    assert rows.keys(torch.stack([a, b, a])) == [(0, 0), (1, 0), (0, 1)]
    rows.begin_step()
    assert rows.keys(b[None]) == [(1, 0)] and rows.keys(torch.stack([b, a])) == [(1, 1), (0, 0)]


# --- Faster Diffusion ---


@pytest.mark.identity("faster_diffusion", "a key at every step is the plain sampler, bit by bit")
@pytest.mark.parametrize("batch", [False, True])
def test_encoding_at_every_step_is_the_plain_sampler(tiny, batch):
    same, figures, _ = arm("faster_diffusion", keys="all", noise=0.0, batch=batch)
    assert (same == arm("ddim")[0]).all() and figures["encoder calls"] == 10


@pytest.mark.identity("faster_diffusion", "the key steps are the paper's")
def test_the_papers_key_steps():
    assert faster_diffusion.key_steps("paper", 1, "", 50) == list(faster_diffusion.PAPER)
    assert faster_diffusion.key_steps("paper", 1, "", 1) == [0]
    assert faster_diffusion.key_steps("uniform", 4, "", 10) == [0, 4, 8]
    assert faster_diffusion.key_steps("list", 4, " 7,3, ", 10) == [0, 3, 7]


def test_skipped_steps_decoded_in_a_batch_or_one_by_one(tiny):
    one, figures, events = arm("faster_diffusion", keys="uniform", every=4)
    many, others, _ = arm("faster_diffusion", keys="uniform", every=4, batch=True)
    assert figures["encoder calls"] == others["encoder calls"] == 3
    assert np.abs(one.astype(int) - many).max() <= 2
    assert np.abs(one.astype(int) - arm("ddim")[0]).mean() > 0.1  # it is not the plain sampler in disguise
    strip = [e for e in events if isinstance(e, Step)][-1].aside[0].items[0]
    assert "encoder ran 3 times" in strip.caption


def test_prior_noise_comes_back_in_the_second_half_only(tiny):
    patch, noise = faster_diffusion.KeySteps(noise=0.003), torch.ones(1, 8, 16, 16)
    with patch.applied(tiny, [999, 499]):
        assert torch.equal(patch.before_step(noise, 0, noise), noise)
        assert torch.allclose(patch.before_step(noise, 1, noise), 1.003 * noise)


def test_key_steps_that_can_not_be(tiny):
    for chosen in ("1, two", "0, 10"):
        (end,) = [
            e.event
            for e in run(
                {
                    "task": "text_to_image",
                    "job": {"prompt": PROMPT},
                    "arms": [{"method": "faster_diffusion", "knobs": {"steps": 10, "keys": "list", "chosen": chosen}}],
                }
            )
        ]
        assert "key steps must" in end.error


@pytest.mark.parametrize("batch", [False, True])
def test_guidance_may_stop_over_reused_features(tiny, batch):
    piece = {"method": "faster_diffusion", "knobs": {"keys": "all", "noise": 0.0, "batch": batch}}
    alone, figures, _ = arm("adaptive_guidance", threshold=0.9, warmup=0.3)
    stacked, more, _ = arm("adaptive_guidance", [piece], threshold=0.9, warmup=0.3)
    assert figures["guided steps"] < 10 and more["guided steps"] == figures["guided steps"] and (alone == stacked).all()
    _, fewer, _ = arm("adaptive_guidance", [{"method": "faster_diffusion", "knobs": {"batch": batch}}], threshold=0.9, warmup=0.3)
    assert fewer["encoder calls"] == len(faster_diffusion.key_steps("paper", 1, "", 10))


# --- DeepCache ---


def test_a_cache_of_one_step_is_the_plain_sampler(tiny):
    assert (arm("deepcache", interval=1)[0] == arm("ddim")[0]).all()


def test_the_whole_network_runs_at_the_interval(tiny):
    cached, figures, _ = arm("deepcache", interval=4)
    assert figures["whole evaluations"] == 3 and figures["nfe"] == 20
    assert np.abs(cached.astype(int) - arm("ddim")[0]).mean() > 0.1


def test_each_evaluation_of_a_step_has_its_own_cache(tiny):
    plain, cached = (arm("w2sd", [{"method": "deepcache", "knobs": {"interval": k}}])[0] for k in (1, 3))
    assert (plain == arm("w2sd")[0]).all() and (plain != cached).any()


# --- Adaptive Guidance ---


@pytest.mark.identity("adaptive_guidance", "a threshold out of reach is full guidance, bit by bit")
def test_a_threshold_out_of_reach_is_full_guidance(tiny):
    same, figures, _ = arm("adaptive_guidance", threshold=1.0)
    assert (same == arm("ddim")[0]).all() and figures["guided steps"] == 10


def test_guidance_that_stops_costs_one_evaluation_a_step(tiny):
    _, figures, _ = arm("adaptive_guidance", threshold=0.9, warmup=0.3)
    assert figures["guided steps"] == 3 and figures["nfe"] == 13


@pytest.mark.identity("adaptive_guidance", "AG at scale 1 is the sampler without guidance, one evaluation a step")
def test_steps_without_guidance_cost_one_evaluation(tiny):
    assert arm("adaptive_guidance", scale=1.0)[1]["nfe"] == 10
    assert (arm("adaptive_guidance", scale=1.0)[0] == arm("ddim", scale=1.0)[0]).all()


def test_a_stacked_guide_keeps_the_methods_interval_and_rescale(tiny):
    piece = [{"method": "adaptive_guidance", "knobs": {"threshold": 1.0}}]
    knobs = {"rescale": 0.7, "start": 0.2, "stop": 0.6}
    own, with_piece = arm("ddim", **knobs), arm("ddim", piece, **knobs)
    assert (own[0] == with_piece[0]).all() and own[1]["nfe"] == with_piece[1]["nfe"] == 14


def test_linear_ag_fits_once_and_then_costs_less(tiny):
    linear_ag._fitted.clear()
    first, figures, _ = arm("adaptive_guidance", mode="LinearAG")
    again, later, events = arm("adaptive_guidance", mode="LinearAG")
    assert figures["evaluations for fitting"] == 8 * 2 * 5 and "evaluations for fitting" not in later
    assert (first == again).all() and later["nfe"] == 3 * 2 + 2 + 5  # steps 1, 3, 5 guided; 2, 4 estimated; five alone
    assert list([e for e in events if isinstance(e, Step)][-1].aside[0].series.values())[0][0] == [2.0, 4.0]
    assert "evaluations for fitting" in arm("adaptive_guidance", mode="LinearAG", negative="a dog")[1]


@pytest.mark.identity("adaptive_guidance", "LinearAG's least squares find weights that are there")
def test_linear_ag_finds_weights_that_are_there():
    c = [torch.randn(5000, dtype=torch.float64) for _ in range(4)]
    u = [torch.randn(5000, dtype=torch.float64) for _ in range(4)]
    u[3] = 0.5 * c[0] - 2 * c[3] + 0.25 * u[2]
    found = linear_ag.solve(c, u)
    assert sorted(found.weights) == [1, 3]
    assert np.allclose(found.weights[3], [0.5, 0, 0, -2, 0, 0.25], atol=1e-4)
    assert found.residual[3] < 1e-8 < 0.5 < found.residual[1]


@pytest.mark.identity("adaptive_guidance", "LinearAG at scale 1 is the sampler without guidance, one evaluation a step")
def test_linear_ag_without_guidance_evaluates_the_condition_alone(tiny):
    linear_ag._fitted.clear()
    pixels, figures, _ = arm("adaptive_guidance", mode="LinearAG", scale=1.0)
    plain, cost, _ = arm("ddim", scale=1.0)
    assert figures["nfe"] == cost["nfe"] == 10 and "evaluations for fitting" not in figures
    assert (pixels == plain).all()


def test_linear_ag_needs_one_state_a_step(tiny):
    job = {"task": "text_to_image", "job": {"prompt": PROMPT}}
    (end,) = [e.event for e in run(job | {"arms": [{"method": "adaptive_guidance", "knobs": {"mode": "LinearAG"}, "stack": [{"method": "w2sd"}]}]})]
    assert "one state a step" in end.error


@pytest.mark.identity("adaptive_guidance", "on a mixture of Gaussians AG is nearer to full guidance than fewer steps at its cost")
def test_adaptive_guidance_on_a_mixture_of_gaussians():
    """32 dimensions, eight classes, 20 steps at scale 4: less error than fewer steps at the same evaluations."""
    means = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    model = analytic.mixture(means, 0.5)
    cond, uncond, x = analytic.weights(1, *[0] * 7), analytic.weights(*[1 / 8] * 8), analytic.start(64, 32)

    def go(steps, guide):
        model.nfe = 0
        with torch.no_grad():
            *_, (z, _) = sampling.denoise(model, cond, uncond, x, sampling.SchedulerWalk(model, steps, "ddim"), guide)
        return z, model.nfe / len(x)

    def error(z):
        return float((z - full).square().mean())

    full, cost = go(20, sampling.Guided(4.0))
    guide = adaptive_guidance.AdaptiveGuide(0.99, 0.25, 4.0)
    adaptive, less = go(20, guide)
    assert cost == 40 and less <= 30
    fewer, same = go(round(less / 2), sampling.Guided(4.0))
    assert same >= less - 1 and error(adaptive) < 0.25 * error(fewer)
    assert error(adaptive) < 0.01 * error(go(20, sampling.Guided(1.0))[0])


# --- W2SD ---


@pytest.mark.identity("w2sd", "no strength is DDIM, bit by bit")
def test_no_strength_is_the_plain_sampler(tiny):
    assert (arm("w2sd", strength=0.0)[0] == arm("ddim")[0]).all()
    assert (arm("w2sd", start=0.5, stop=0.5)[0] == arm("ddim")[0]).all()


def test_a_reflected_step_costs_five_evaluations(tiny):
    _, figures, events = arm("w2sd")
    assert figures["nfe"] == 9 * 5 + 2
    pictures, curve = [e for e in events if isinstance(e, Step)][-1].aside
    assert len(pictures.items) == 3 and len(list(curve.series.values())[0][0]) == 9


@pytest.mark.identity("w2sd", "the inverse undoes a DDIM step")
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "flow"])
def test_the_inverse_undoes_a_ddim_step(prediction):
    model = analytic.mixture(torch.zeros(1, 3), 1.0, "epsilon" if prediction == "flow" else prediction, zero_snr=prediction == "v_prediction")
    if prediction == "flow":
        model.prediction = "flow"
    x, x0 = analytic.start(4, 3), analytic.start(4, 3, seed=1)
    for t, after in ((999, 949), (499, 449), (99, 49)):
        y = sampling.ddim_next(model, x0, model.noise_of(x0, x, t), after)
        alpha, sigma = model.alpha_sigma(t)
        # Agreeing sides hold the same ε: this is the x0 it amounts to at (y, t); where α = 0 they hold x0 itself.
        held = (y - sigma * model.noise_of(x0, x, t)) / alpha if alpha else x0
        assert torch.allclose(w2sd.invert(model, held, y, t, after), x, atol=5e-3)


def test_the_weak_model_counts_and_an_unfit_one_is_refused(tiny):
    _, figures, _ = arm("w2sd", pair="model", weak_model="emoji-ldm")
    assert figures["nfe"] == 9 * 6 + 2
    for name in ("no-such-model", "flux-schnell"):
        job = {"task": "text_to_image", "job": {"prompt": PROMPT}, "arms": [{"method": "w2sd", "knobs": {"pair": "model", "weak_model": name}}]}
        (end,) = [e.event for e in run(job)]
        assert end.error and "log holds" not in end.error


def test_the_prompt_pair_moves_the_state_by_what_the_words_say(tiny):
    _, figures, events = arm("w2sd", pair="prompt", plain="a cat")
    assert figures["nfe"] == 9 * 6 + 2 and [e for e in events if isinstance(e, Step)][-1].aside[1].series


def test_faster_diffusion_and_w2sd_are_refused_together(tiny):
    for method, stack in (("w2sd", ["faster_diffusion"]), ("faster_diffusion", ["w2sd"]), ("adaptive_guidance", ["w2sd", "faster_diffusion"])):
        assert "cache with DeepCache instead" in refusal(method, [{"method": s} for s in stack])


class Weights(w2sd.Reflection):
    """The pair of the card: the weak side gives the left mode less weight."""

    def __init__(self, weak, **settings):
        super().__init__(**settings)
        self.weak = weak

    def weak_side(self, model):
        return {"cond": self.weak}


@pytest.mark.identity("w2sd", "a mixture moves towards the ideal one, reversed away, an equal pair stays")
def test_w2sd_moves_a_mixture_towards_the_ideal():
    """Modes at ±4; left weight .10 weak, .30 strong, .50 ideal. Reversed it moves away; an equal pair stays."""
    model = analytic.mixture(torch.tensor([[-4.0], [4.0]]), 0.8, "v_prediction", zero_snr=True)
    strong, weak, x = analytic.weights(0.3, 0.7), analytic.weights(0.1, 0.9), analytic.start(4000, 1)

    def left(walk):
        with torch.no_grad():
            *_, (z, _) = sampling.denoise(model, strong, strong, x, walk(model, 50), sampling.Guided(1.0))
        return float((z < 0).float().mean())

    plain = left(lambda m, n: sampling.SchedulerWalk(m, n, "ddim"))
    assert plain == pytest.approx(0.3, abs=0.03)
    assert left(Weights(weak)) > plain + 0.05
    assert left(Weights(weak, reverse=True)) < plain - 0.05
    assert left(Weights(strong)) == pytest.approx(plain, abs=0.03)


# --- what they leave behind ---


@pytest.mark.parametrize("piece", [faster_diffusion.KeySteps(), DeepCache()])
def test_a_patch_unwinds_when_the_run_breaks(tiny, piece):
    hooks = [len(m._forward_pre_hooks) for m in tiny.net.modules()]
    with pytest.raises(ZeroDivisionError), piece.applied(tiny, [999]):
        raise ZeroDivisionError
    assert "forward" not in tiny.net.__dict__ and hooks == [len(m._forward_pre_hooks) for m in tiny.net.modules()]
