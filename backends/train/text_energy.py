"""Train EDLM's energy on the text world by noise-contrastive estimation, beside the frozen masked diffusion model.

    python -m backends.train.text_energy --minutes 15

Positive: an answer of the world; negative: what the model draws for it in one step from the same canvas
(Xu et al., arXiv 2410.21357, eq. 10): −log σ(−E⁺) − log σ(E⁻). Muon and a shorter average stand in for the paper's AdamW,
3e-4, and EMA of 0.9999, which want more steps than a CPU has. Resumes from the committed weights.
"""

import json

import numpy as np
import torch
from torch.nn.functional import softplus

from backends import models
from backends.nets.energy import EnergyNetwork
from backends.text.canvas import predict
from backends.train.common import Clock, Ema, MuonAdamW, arguments, autocast, save_pretrained, stream
from backends.train.text_mdm import MIX, TYPICAL, Corpus


def main() -> None:
    args = arguments("text-energy", lr=5e-4, tokens=4096)
    model, device, out = models.load("text-mdm"), args.device, args.out
    fresh = not (out / "config.json").exists()
    net = EnergyNetwork() if fresh else EnergyNetwork.from_pretrained(out)
    if fresh:
        net.start_from(model.net)
    net.to(device).train()
    optimiser, ema, corpus, clock, step = MuonAdamW(net, args.lr), Ema(net, 0.99), Corpus(model.tokenizer), Clock(args.minutes), 0
    earlier = 0 if fresh else json.loads((out / "training.json").read_text())["steps"]
    embed = model.net.model.embed_tokens
    kinds = [k for k in MIX if corpus.fixed.get(k, True)]
    odds, seen = np.array([MIX[k] for k in kinds]) / sum(MIX[k] for k in kinds), []

    def batch(i: int) -> tuple:
        rng = np.random.default_rng([args.seed + 1, earlier, i])
        kind = str(rng.choice(kinds, p=odds))
        return corpus.batch(rng, kind, max(8, args.tokens // TYPICAL[kind]))

    coming = stream(batch, args.workers)
    while not clock.over:
        optimiser.rate(args.lr * min(1, (step + 1) / 100) * min(1, clock.left / (clock.budget * 0.33)) + 1e-6)
        ids, may = (m.to(device) for m in next(coming))
        levels = torch.rand(len(ids), 1, device=device).clamp_min(0.1)
        canvas = ids.masked_fill(may & (torch.rand(ids.shape, device=device) < levels), corpus.mask)
        with torch.no_grad():
            drawn, _ = predict(model.logits(canvas), temperature=1.0)
            drawn = torch.where(canvas == corpus.mask, drawn, canvas)
            x_t, right, wrong = embed(canvas), embed(ids), embed(drawn)
        with autocast(device):
            energies = net(torch.cat([x_t, x_t]), torch.cat([right, wrong]), torch.cat([may, may])).float()
        positive, negative = energies.chunk(2)
        differ = (drawn != ids).any(1)  # a draw that is the answer itself says nothing
        loss = ((softplus(positive) + softplus(-negative)) * differ).sum() / differ.sum().clamp_min(1)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        ema.update(net)
        step += 1
        seen.append(float(((positive < negative) & differ).sum() / differ.sum().clamp_min(1)))
        if clock.every(60 if device == "cpu" else 20, "log"):
            print(f"{clock.seconds / 60:5.1f} min  step {step}  loss {loss.item():.3f}  told apart {np.mean(seen[-50:]):.2f}", flush=True)
    save_pretrained(ema.net, out)
    (out / "training.json").write_text(json.dumps({"steps": earlier + step, "told_apart": round(float(np.mean(seen[-100:])), 3)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
