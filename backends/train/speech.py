"""Train one of the three networks that clean speech, on warped complex spectrograms of 2 s (256 frames).

    python -m backends.worlds.speech_build FOLDER runs/speech.safetensors    # the corpus, beforehand: see there
    python -m backends.train.speech --part predictive --minutes 3
    python -m backends.train.speech --part sgmse --minutes 6       # begins as the predictive one
    python -m backends.train.speech --part storm --minutes 5       # needs the predictive one, which stays frozen; begins as sgmse's

The minutes are those of one session on a data-centre GPU (batches of 192 there, `--batch` for others; 8 on a CPU). Where less is left,
take from `predictive` first; `storm` means little before `sgmse` has passed the noisy sound's SI-SDR. Each goes on from what is
committed and, where runs/ is kept, from the optimiser's state; `--fresh 1` starts a part anew. The rate falls to nothing over the last
60 % of the minutes, so give a part its minutes in one piece. Every `log` seconds a line says the loss on unheard sentences and noises by
time, and their SI-SDR; the last of them stands in training.json beside the weights.

`predictive` learns x from y by mean squared error. `sgmse` and `storm` learn the speech behind x_t of the process around y or D(y), as a
correction of the best linear estimate of it, all times weighing the same: ½‖σ·s(x_t, …, t) + z‖² (Lemercier et al., arXiv 2212.11851,
eqs. 10 and 19) with the weight that Karras et al. (arXiv 2206.00364) give it; see ouve.preconditioning for why.
"""

import json

import torch

from backends.audio import ouve
from backends.nets.spectrogram_unet import HOP, LEVEL, SpectrogramUNet, analyse, synthesise
from backends.train.common import RUNS, Clock, Ema, MuonAdamW, arguments, autocast, load_state, save_pretrained, save_state
from backends.worlds.speech import Corpus, si_sdr

# Spreads: how far y and D(y) are from the speech on the training mixtures, root mean square.
PARTS = {"predictive": dict(pictures=1), "sgmse": dict(pictures=2, spread=0.07), "storm": dict(pictures=3, spread=0.05)}
STEPS = {"sgmse": dict(steps=30, corrector=True), "storm": dict(steps=10)}


def beside(part: str, y, predictive) -> tuple:
    """The spectrograms that a score network sees, the centre of its process last."""
    if part == "sgmse":
        return (y,)
    with torch.no_grad(), autocast(y.device.type):
        return y, predictive.denoise(y).float()


def perturbed(x0, centre, t):
    """(x_t, the noise in it) at t (B,)."""
    z, t = ouve.PART * torch.randn_like(x0), t.view(-1, 1, 1, 1)
    return ouve.mean(x0, centre, t) + ouve.std(t) * z, z


def loss_of(net, part: str, noisy, clean, predictive):
    y, x0 = analyse(noisy), analyse(clean)
    if part == "predictive":
        with autocast(y.device.type):
            out = net.denoise(y)
        return (out.float() - x0).square().mean() / LEVEL**2
    seen = beside(part, y, predictive)
    t = ouve.T_EPS + (1 - ouve.T_EPS) * torch.rand(len(y), device=y.device)
    x, _ = perturbed(x0, seen[-1], t)
    skip, out, _ = ouve.preconditioning(t.view(-1, 1, 1, 1), net.config.spread)
    with autocast(y.device.type):
        found = net.residual(x, t, *seen)
    return (found.float() - (x0 - seen[-1] - skip * (x - seen[-1])) / out).square().mean()


@torch.no_grad()
def score_loss(net, part: str, noisy, clean, predictive, at=(0.03, 0.1, 0.25, 0.5, 0.75, 1.0)) -> dict[str, float]:
    """t -> ½|σ·s + z|² a bin (Lemercier et al., eq. 10), on the same noise each time; ½ is a network that knows nothing."""
    y, x0 = analyse(noisy), analyse(clean)
    seen = beside(part, y, predictive)
    with torch.random.fork_rng(devices=[y.device] if y.is_cuda else []):
        torch.manual_seed(0)
        found = {}
        for time in at:
            t = torch.full((len(y),), time, device=y.device)
            x, z = perturbed(x0, seen[-1], t)
            with autocast(y.device.type):
                score = net.score(x, t, *seen)
            found[str(time)] = float((ouve.std(t).view(-1, 1, 1, 1) * score + z).square().mean())  # of both parts of a bin
    return found


def from_sgmse(folder) -> SpectrogramUNet:
    """StoRM's network begun as SGMSE+'s: it reads D(y) where that read y, and y not at all until it has learnt to."""
    weights, net = SpectrogramUNet.from_pretrained(folder, torch_dtype=torch.float32).state_dict(), SpectrogramUNet(**PARTS["storm"])
    x, y = weights["unet.conv_in.weight"].chunk(2, 1)
    net.load_state_dict(weights | {"unet.conv_in.weight": torch.cat([x, torch.zeros_like(y), y], 1)})
    return net


def from_predictive(folder) -> SpectrogramUNet:
    """SGMSE+'s network begun as the predictive one: far out it must find the speech in y as that does."""
    weights, net = SpectrogramUNet.from_pretrained(folder, torch_dtype=torch.float32).state_dict(), SpectrogramUNet(**PARTS["sgmse"])
    y = weights["unet.conv_in.weight"] * LEVEL
    last = {name: 0.05 * weights[name] / LEVEL for name in ("unet.conv_out.weight", "unet.conv_out.bias")}
    net.load_state_dict(weights | last | {"unet.conv_in.weight": torch.cat([torch.zeros_like(y), y], 1)})
    return net


@torch.no_grad()
def enhance(net, part: str, noisy, predictive, generator, **steps):
    y = analyse(noisy)
    with autocast(y.device.type):
        if part == "predictive":
            return synthesise(net.denoise(y), noisy.shape[1])
        seen = beside(part, y, predictive)
        *_, x = ouve.reverse(lambda x, t: net.score(x, t, *seen), seen[-1], generator=generator, **STEPS[part] | steps)
    return synthesise(x, noisy.shape[1])


FIRST = {"sgmse": ("predictive", from_predictive), "storm": ("sgmse", from_sgmse)}


def begun(part: str, folder) -> tuple[SpectrogramUNet, dict]:
    """(the network a part starts as, what its log says of that): another part's where that is trained, else random."""
    first, made_from = FIRST.get(part, ("", None))
    if first and (folder / first / "config.json").exists():
        return made_from(folder / first), {"begun_as": {first: json.loads((folder / first / "training.json").read_text())}}
    return SpectrogramUNet(**PARTS[part]), {}


def main() -> None:
    args = arguments("speech", part="predictive", corpus=str(RUNS / "speech.safetensors"), batch=0, frames=256, lr=1.5e-3, ema=0.999, log=60.0, fresh=False)
    length = (args.frames - 1) * HOP
    out, device, gpu = args.out / args.part, args.device, args.device != "cpu"
    batch = args.batch or (192 if gpu else 8)
    torch.backends.cudnn.benchmark = True  # shapes never change
    log, state_path = {"samples": 0, "minutes": 0}, RUNS / f"speech-{args.part}.pt"
    if (out / "config.json").exists() and not args.fresh:
        net, log = SpectrogramUNet.from_pretrained(out, torch_dtype=torch.float32), json.loads((out / "training.json").read_text())
    else:
        net, parent = begun(args.part, args.out)
        log |= parent
    net.to(device, memory_format=torch.channels_last).train()
    predictive = None
    if args.part == "storm":
        predictive = SpectrogramUNet.from_pretrained(args.out / "predictive", torch_dtype=torch.float32).eval().requires_grad_(False)
        predictive.to(device, memory_format=torch.channels_last)
    corpus, test = Corpus(args.corpus, "train", device), Corpus(args.corpus, "validation", device)
    kept = 32 if gpu else 4
    test_noisy, test_clean = (sound[:kept] for sound in test.mix(32, length, seed=1))
    optimiser, ema = MuonAdamW(net, args.lr), Ema(net, args.ema)
    if not args.fresh and (state := load_state(state_path)) and state["samples"] >= log["samples"]:
        net.load_state_dict(state["net"]), ema.net.load_state_dict(state["ema"]), optimiser.load_state_dict(state["optimiser"])
        log["samples"], log["minutes"] = state["samples"], state["minutes"]
    ema.updates = log["samples"] // batch
    print(f"{args.part}: {sum(p.numel() for p in net.parameters()) / 1e6:.2f} M parameters, {log['samples']} samples so far", flush=True)

    def held_out() -> dict:
        """On unheard sentences and noises: mean SI-SDR in dB, and a score network's loss by time."""
        made = enhance(ema.net, args.part, test_noisy, predictive, torch.Generator().manual_seed(0))
        found = {"held_out_si_sdr": round(float(si_sdr(made, test_clean).mean()), 2)}
        if args.part != "predictive":
            losses = score_loss(ema.net, args.part, test_noisy, test_clean, predictive)
            found["held_out_loss"] = {t: round(loss, 4) for t, loss in losses.items()}
        return found

    def save() -> None:
        log["minutes"] = round(began + clock.seconds / 60, 1)
        save_state(state_path, net=net, ema=ema.net, optimiser=optimiser, samples=log["samples"], minutes=log["minutes"])
        save_pretrained(ema.net, out)
        (out / "training.json").write_text(json.dumps(log | held_out(), indent=1) + "\n")

    print(f"noisy: {si_sdr(test_noisy, test_clean).mean():.2f} dB", flush=True)
    if predictive is not None:
        print(f"D: {si_sdr(enhance(predictive, 'predictive', test_noisy, None, None), test_clean).mean():.2f} dB", flush=True)
    step, began, clock = 0, log["minutes"], Clock(args.minutes)
    while not clock.over:
        optimiser.rate(args.lr * min(1, (step + 1) / 100) * min(1, clock.left / (clock.budget * 0.6)) + 1e-6)
        loss = loss_of(net, args.part, *corpus.mix(batch, length), predictive)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        ema.update(net)
        step, log["samples"] = step + 1, log["samples"] + batch
        if clock.every(args.log, "log"):
            print(f"{clock.seconds / 60:5.1f} min  {log['samples']} samples  loss {loss.item():.4f}  {json.dumps(held_out())}", flush=True)
        if clock.every(120 if gpu else 600, "save"):
            save()
    save()
    print((out / "training.json").read_text(), flush=True)


if __name__ == "__main__":
    main()
