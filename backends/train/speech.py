"""Train one of the three networks that clean speech, on warped complex spectrograms of 2 s (256 frames).

    python -m backends.train.speech --part predictive --minutes 3 --corpus runs/speech.safetensors
    python -m backends.train.speech --part sgmse --minutes 8.5
    python -m backends.train.speech --part storm --minutes 5.5      # needs the predictive one, which stays frozen; begins as sgmse's

`predictive` learns x from y by mean squared error; `sgmse` the score of the process around y, `storm` around D(y), by
½‖σ·s(x_t, …, t) + z‖² (Lemercier et al., arXiv 2212.11851, eqs. 10 and 19). The corpus: `backends/worlds/speech_build.py`.
"""

import json

import torch

from backends.audio import ouve
from backends.nets.spectrogram_unet import HOP, SpectrogramUNet, analyse, synthesise
from backends.train.common import RUNS, Clock, Ema, MuonAdamW, arguments, autocast, load_state, save_pretrained, save_state
from backends.worlds.speech import Corpus, si_sdr

PARTS = {"predictive": dict(pictures=1, timed=False), "sgmse": dict(pictures=2), "storm": dict(pictures=3)}
STEPS = {"sgmse": dict(steps=30, corrector=True), "storm": dict(steps=10)}


def denoise(predictive, y):
    with torch.no_grad(), autocast(y.device.type):
        return predictive(y, torch.zeros(len(y), device=y.device)).float()


def score(net, x, conditions, t):
    """The network gives −score; `conditions`: the spectrograms beside x."""
    with autocast(x.device.type):
        return -net(torch.cat([x, *conditions], 1), t).float()


def loss_of(net, part: str, noisy, clean, predictive):
    y, x0 = analyse(noisy), analyse(clean)
    if part == "predictive":
        with autocast(y.device.type):
            out = net(y, torch.zeros(len(y), device=y.device))
        return (out.float() - x0).square().mean() * 100  # the warped spectrogram's power is about 0.01
    centre = y if part == "sgmse" else denoise(predictive, y)
    t = ouve.T_EPS + (1 - ouve.T_EPS) * torch.rand(len(y), device=y.device)
    sigma, z = ouve.std(t).view(-1, 1, 1, 1), torch.randn_like(y)
    x = ouve.mean(x0, centre, t.view(-1, 1, 1, 1)) + sigma * z
    conditions = (y,) if part == "sgmse" else (y, centre)
    return 0.5 * (sigma * score(net, x, conditions, t) + z).square().mean()


def from_sgmse(folder) -> SpectrogramUNet:
    """StoRM's network begun as SGMSE+'s: it reads D(y) where that read y, and y not at all until it has learnt to."""
    weights, net = SpectrogramUNet.from_pretrained(folder, torch_dtype=torch.float32).state_dict(), SpectrogramUNet(**PARTS["storm"])
    x, y = weights["unet.conv_in.weight"].chunk(2, 1)
    net.load_state_dict(weights | {"unet.conv_in.weight": torch.cat([x, torch.zeros_like(y), y], 1)})
    return net


@torch.no_grad()
def enhance(net, part: str, noisy, predictive, generator):
    y = analyse(noisy)
    if part == "predictive":
        return synthesise(denoise(net, y), noisy.shape[1])
    centre = y if part == "sgmse" else denoise(predictive, y)
    conditions = (y,) if part == "sgmse" else (y, centre)
    *_, x = ouve.reverse(lambda x, t: score(net, x, conditions, t), centre, generator=generator, **STEPS[part])
    return synthesise(x, noisy.shape[1])


def main() -> None:
    args = arguments("speech", part="predictive", corpus=str(RUNS / "speech.safetensors"), batch=0, frames=256, lr=1.5e-3, ema=0.999)
    length = (args.frames - 1) * HOP
    out, device, gpu = args.out / args.part, args.device, args.device != "cpu"
    batch = args.batch or (48 if gpu else 8)
    log = {"samples": 0, "minutes": 0}
    if (out / "config.json").exists():
        net, log = SpectrogramUNet.from_pretrained(out, torch_dtype=torch.float32), json.loads((out / "training.json").read_text())
    elif args.part == "storm" and (args.out / "sgmse" / "config.json").exists():
        net = from_sgmse(args.out / "sgmse")
        log["begun_as"] = {"sgmse": json.loads((args.out / "sgmse" / "training.json").read_text())}
    else:
        net = SpectrogramUNet(**PARTS[args.part])
    net.to(device, memory_format=torch.channels_last).train()
    predictive = None
    if args.part == "storm":
        predictive = SpectrogramUNet.from_pretrained(args.out / "predictive", torch_dtype=torch.float32).eval().requires_grad_(False)
        predictive.to(device, memory_format=torch.channels_last)
    corpus, test = Corpus(args.corpus, "train", device), Corpus(args.corpus, "validation", device)
    kept = 32 if gpu else 4
    test_noisy, test_clean = (sound[:kept] for sound in test.mix(32, length, seed=1))
    optimiser, ema = MuonAdamW(net, args.lr), Ema(net, args.ema)
    state_path = RUNS / f"speech-{args.part}.pt"
    if (state := load_state(state_path)) and state["samples"] >= log["samples"]:
        net.load_state_dict(state["net"]), ema.net.load_state_dict(state["ema"]), optimiser.load_state_dict(state["optimiser"])
        log["samples"], log["minutes"] = state["samples"], state["minutes"]
    ema.updates = log["samples"] // batch
    print(f"{args.part}: {sum(p.numel() for p in net.parameters()) / 1e6:.2f} M parameters, {log['samples']} samples so far", flush=True)

    def held_out() -> float:
        """Mean SI-SDR in dB on unheard sentences and noises."""
        made = enhance(ema.net, args.part, test_noisy, predictive, torch.Generator().manual_seed(0))
        return float(si_sdr(made, test_clean).mean())

    def save() -> None:
        log["minutes"] = round(began + clock.seconds / 60, 1)
        save_state(state_path, net=net, ema=ema.net, optimiser=optimiser, samples=log["samples"], minutes=log["minutes"])
        save_pretrained(ema.net, out)
        (out / "training.json").write_text(json.dumps(log | {"held_out_si_sdr": round(held_out(), 2)}, indent=1) + "\n")

    print(f"noisy: {si_sdr(test_noisy, test_clean).mean():.2f} dB", flush=True)
    step, began, clock = 0, log["minutes"], Clock(args.minutes)
    while not clock.over:
        optimiser.rate(args.lr * min(1, (step + 1) / 100) * min(1, clock.left / (clock.budget * 0.6)) + 1e-6)
        loss = loss_of(net, args.part, *corpus.mix(batch, length), predictive)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        ema.update(net)
        step, log["samples"] = step + 1, log["samples"] + batch
        if clock.every(30 if args.part == "predictive" else 75, "log"):
            print(f"{clock.seconds / 60:5.1f} min  {log['samples']} samples  loss {loss.item():.4f}  held-out {held_out():.2f} dB", flush=True)
        if clock.every(120 if gpu else 600, "save"):
            save()
    save()
    print((out / "training.json").read_text(), flush=True)


if __name__ == "__main__":
    main()
