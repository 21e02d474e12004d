"""Reinforcement learning of the text model: the cards' identities, on a tiny random model."""

import pytest
import torch

from backends.text import mdpo, random_masks, reinforce, tracerl
from tests.tiny_text import tiny

PROMPTS = ["1 + 2 =", "12 + 3 - 4 ="]


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture
def made(model):
    torch.manual_seed(0)
    return reinforce.roll_out(model, PROMPTS, 3, 8, temperature=1.0, threshold=0.5)


@pytest.mark.identity("tracerl", "every token of an answer is trained once a trace")
def test_every_token_of_an_answer_appears_once(model, made):
    assert (made.step >= 0).all() and not (made.ids == model.mask).any()
    seen = sum(tokens.long() for _, tokens in tracerl.slices(made, 1))
    assert (seen == 1).all()
    assert (sum(tokens.long() for _, tokens in tracerl.slices(made, 3)) == 1).all()


@pytest.mark.identity("tracerl", "replayed log-probabilities are the rollout's within 1e-4; random masks fail this")
def test_replayed_log_probabilities_are_those_of_the_rollout(model, made):
    """TraceRL's identity: within 1e-4, ratio 1; states masked at random fail it."""
    for since, tokens in tracerl.slices(made, 1):
        logp = reinforce.replayed(model, made, made.at(since, model.mask))
        assert (logp - made.logp)[tokens].abs().max() < 1e-4
    canvas = made.ids.clone()
    hidden = torch.rand(made.step.shape) < 0.5
    canvas[:, made.start :][hidden] = model.mask
    assert (reinforce.replayed(model, made, canvas) - made.logp)[hidden].abs().max() > 1e-2


def test_prompts_padded_on_the_left_are_read_as_if_alone(model):
    together = reinforce.roll_out(model, PROMPTS, 1, 8, temperature=0.0, threshold=2.0)
    alone = reinforce.roll_out(model, PROMPTS[:1], 1, 8, temperature=0.0, threshold=2.0)
    assert together.ids[0, together.start :].tolist() == alone.ids[0, alone.start :].tolist()


@pytest.mark.identity("tracerl", "with V = 0 and γ = λ = 1 every advantage is the sequence's reward")
def test_without_values_every_advantage_is_the_reward(made):
    reward = torch.tensor([1.0, 0, 0.5, 2, -1, 3])
    gains, returns = tracerl.advantages(made.step, reward, torch.zeros(made.step.shape))
    assert torch.allclose(gains, reward[:, None].expand_as(gains)) and torch.allclose(returns, gains)


def test_a_perfect_value_leaves_no_advantage(made):
    reward = torch.tensor([1.0, 0, 0.5, 2, -1, 3])
    gains, _ = tracerl.advantages(made.step, reward, reward[:, None].expand(made.step.shape).contiguous())
    assert gains.abs().max() < 1e-6


@pytest.mark.identity("tracerl", "two steps at γ = 0.9, λ = 0.8 have the advantages that eqs. 7 to 11 give by hand; padding is no step")
def test_advantages_are_those_computed_by_hand():
    gains, returns = tracerl.advantages(torch.tensor([[0, 0, 1, -1]]), torch.tensor([1.0]), torch.tensor([[0.2, 0.4, 0.5, 9.0]]), gamma=0.9, lam=0.8)
    assert torch.allclose(gains, torch.tensor([[0.61, 0.41, 0.5, 0.0]])) and torch.allclose(returns, torch.tensor([[0.9, 0.9, 1.0, 0.0]]))


@pytest.mark.identity("mdpo", "rewards 0, 1, 1, 0 give advantages 1.667, 2.5, 1, 0 before normalisation")
def test_mdpo_advantages_are_the_cards():
    gains = mdpo.step_advantages(torch.tensor([0.0, 1, 1, 0]))
    assert torch.allclose(gains, torch.tensor([5 / 3, 2.5, 1.0, 0.0]))


def test_the_value_model_learns_what_answers_are_worth(model, made):
    """By a change of its own of low rank: the model whose backbone it began from stays as it is."""
    torch.manual_seed(0)
    critic, counts, before = tracerl.Value(model, 1e-2), made.counts(model.ends), [p.clone() for p in model.net.parameters()]
    spent = model.nfe
    assert not critic.of(made, 1).any()
    assert model.nfe - spent == len(made.ids) * len(tracerl.slices(made, 1)), "its evaluations count"
    for _ in range(5):
        critic.fit(made, 1, torch.ones(made.step.shape), critic.of(made, 1).detach(), counts)
    assert critic.of(made, 1)[counts].mean() > 0.1 and all(map(torch.equal, before, model.net.parameters()))
    changed = [p for p in critic.net.parameters() if p.requires_grad]
    assert 0 < sum(p.numel() for p in changed) < sum(p.numel() for p in before) and all(p.any() for p in changed)


def test_padding_after_the_end_does_not_count(model, made):
    made.ids[0, made.start :] = torch.tensor([5, 6, model.eos, model.eos, 7, model.eos, 8, 9])
    assert made.counts(model.ends)[0].tolist() == [True, True, True, False, False, False, False, False]


def test_clipping_and_the_divergence():
    zero = torch.zeros(1)
    assert reinforce.clipped(torch.tensor([1.0]), zero, torch.tensor([2.0])).item() == pytest.approx(2.4)  # 1.2 · A
    assert reinforce.clipped(torch.tensor([1.0]), zero, torch.tensor([-2.0])).item() == pytest.approx(-2 * 2.718281828)
    assert reinforce.k3(zero, zero).item() == 0 and reinforce.k3(torch.tensor([1.0]), zero).item() > 0


def test_a_slice_of_nothing_but_padding_is_no_training(model, made):
    made.ids[:, made.start + 1 :] = model.eos
    for row in made.step:
        row[:] = torch.arange(len(row)) + 2  # the last steps wrote padding alone
    reward = torch.tensor([1.0, 0.0] * (len(made.ids) // 2 + 1))[: len(made.ids)]
    with torch.enable_grad(), reinforce.trained_copy(model) as policy:
        tracerl.trace_loss()(policy, made, reward, None)
        assert any(p.grad is not None and p.grad.any() for p in policy.net.parameters())


def test_answers_that_all_fare_alike_teach_nothing():
    assert not reinforce.standardised(torch.ones(4), torch.tensor([0, 0, 1, 1])).any()


@pytest.mark.parametrize("slug", ["tracerl", "mdpo", "random_masks"])
def test_training_makes_rewarded_tokens_likelier(model, slug, monkeypatch):
    """Answers that hold one of the first letters are rewarded: after some updates of a copy more do; the model itself is untouched."""
    from backends.text.tasks import TrainText

    monkeypatch.setattr(reinforce.text, "check", lambda prompt, answer: float(any(c in answer for c in "abcdefgh")))
    before = {k: v.clone() for k, v in model.net.state_dict().items()}
    method = {"tracerl": tracerl.tracerl, "mdpo": mdpo.mdpo, "random_masks": random_masks.random_masks}[slug]
    torch.manual_seed(0)
    *_, last = (e for e in method(TrainText(updates=25, prompts=2, answers=8), model, rate=1e-3, temperature=1.0, threshold=1.01))
    rates = last.value.series["drawn answers"][1]
    assert sum(rates[-5:]) > sum(rates[:5])
    assert all(torch.equal(before[k], v) for k, v in model.net.state_dict().items())


def test_a_policy_of_low_rank_is_kept_whole(model, tmp_path):
    """Its own matrices alone are trained, and what is kept of them gives its logits back."""
    import copy

    from safetensors.torch import save_file

    from backends.text.adapter import apply, kept

    ids = torch.randint(4, 40, (2, 12))
    with torch.enable_grad(), reinforce.trained_copy(model, rank=2) as policy:
        assert torch.equal(policy.logits(ids), model.logits(ids))
        optimiser = torch.optim.SGD([p for p in policy.net.parameters() if p.requires_grad], lr=1.0)
        for _ in range(3):
            policy.logits(ids)[..., 4].mean().backward()
            optimiser.step(), optimiser.zero_grad()
    save_file(kept(policy.net), tmp_path / "a.safetensors")
    other = copy.deepcopy(model.net)
    apply(other, tmp_path / "a.safetensors")
    gap = (other(input_ids=ids).logits - policy.net(input_ids=ids).logits).abs().mean()
    assert gap < 0.01 * (policy.net(input_ids=ids).logits - model.net(input_ids=ids).logits).abs().mean()


def test_every_arm_of_the_long_training_takes_a_step(model, tmp_path, monkeypatch):
    """From the same weights, as many updates each, and an adapter with its figures is kept."""
    import json
    import sys

    from backends import models
    from backends.train import text_rl

    monkeypatch.setattr(sys, "argv", ["text_rl", "--prompts", "2", "--answers", "4", "--tested", "2", "--updates", "2", "--rank", "2", "--out", str(tmp_path)])
    monkeypatch.setattr(models, "load", lambda name: model)
    monkeypatch.setattr(reinforce.text, "check", lambda prompt, answer: float(any(c in answer for c in "abcdefgh")))
    text_rl.main()
    assert {f.stem for f in tmp_path.glob("*.safetensors")} == {f"{name}-0" for name in text_rl.ARMS}
    assert all(json.loads(f.read_text())["updates"] == 2 for f in tmp_path.glob("*.json"))


@pytest.mark.parametrize("shift", [False, True])
def test_answers_are_the_last_logits(shift):
    predictor, ids = tiny(shift=shift), torch.randint(4, 40, (2, 9))
    assert torch.allclose(predictor.answers(ids, 4), predictor.logits(ids)[:, -4:], atol=1e-5)


@pytest.mark.parametrize("shift", [False, True])
def test_the_training_loss_reads_the_states_that_decoding_reads(shift, monkeypatch):
    """With everything masked the bound is the cross-entropy of the predictor's own logits, shifted or not; in fp32, whatever pays here."""
    monkeypatch.setattr("backends.train.common.bf16_pays", lambda device: False)
    from backends.train.text_mdm import diffusion_loss
    from tests.tiny_text import tiny

    predictor = tiny(shift=shift)
    ids, may = torch.randint(4, 40, (3, 10)), torch.zeros(3, 10, dtype=torch.bool)
    may[:, 4:] = True
    loss = diffusion_loss(predictor.net, ids, may, predictor.mask, torch.full((3,), 0.9999999), "cpu", shift)
    logp = predictor.logits(ids.masked_fill(may, predictor.mask)).log_softmax(-1)
    wanted = -logp.gather(-1, ids[..., None])[:, 4:, 0].mean(1)
    assert torch.allclose(loss, wanted, atol=0.02)  # the predictor never says the mask itself
