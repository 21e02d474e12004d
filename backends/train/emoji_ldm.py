"""Train a denoiser of the emoji world on the autoencoder's latents and MiniLM's token states.

    python -m backends.train.emoji_ldm --minutes 60                  # the UNet
    python -m backends.train.emoji_ldm --minutes 10 --size weak      # its deliberately weaker twin
    python -m backends.train.emoji_ldm --minutes 60 --size dit       # the transformer sister

v-prediction with zero terminal SNR. Resumes from the committed weights; the optimiser's state stays in runs/.
Scenes get harder with the samples seen: single large common objects first, small, several and rare ones later.
Cross-attention is shown where the named objects are (`grounding_loss`), since here that is known.
"""

import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, PixArtTransformer2DModel, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image

from backends.embedded import LAYER, TOKENS, minilm
from backends.hub import NO_SIZE
from backends.image.attention_maps import Explicit, Maps
from backends.image.concept_words import emoji_concepts
from backends.nets.patch_vae import PatchAutoencoderKL
from backends.train.common import MODELS, RUNS, Clock, Ema, MuonAdamW, arguments, autocast, load_state, save_pretrained, save_state, stream
from backends.worlds import emoji

SCHEDULE = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
                rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False)  # fmt: skip
UNET = dict(sample_size=16, in_channels=8, out_channels=8, cross_attention_dim=384, layers_per_block=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            # The prompt, pooled, also joins the time embedding: what is shown is learnt sooner than by cross-attention alone.
            addition_embed_type="text", addition_embed_type_num_heads=8)  # fmt: skip
# PixArt's transformer (Chen et al., arXiv 2310.00426), which the methods for transformers meet again in PixArt-Σ: 64 tokens, 11 M.
DIT = dict(sample_size=16, patch_size=2, in_channels=8, out_channels=8, num_layers=8, num_attention_heads=4, attention_head_dim=72,
           cross_attention_dim=288, caption_channels=384, use_additional_conditions=False)  # fmt: skip
# attention_head_dim counts heads here (diffusers' naming): few wide heads train fastest on a CPU.
SIZES = {
    "unet": (UNET | dict(block_out_channels=(64, 128, 256), attention_head_dim=(1, 2, 4)), "emoji-ldm/unet"),
    "weak": (UNET | dict(block_out_channels=(32, 64, 96), attention_head_dim=(1, 1, 1)), "emoji-ldm-weak/unet"),
    "dit": (DIT, "emoji-dit/transformer"),
}
OPTIONS = dict(batch=96, lr=1e-3, ema=0.995, chunk=4096, kept=49_152, fill=1, reuse=5.0)
CELLS = 8  # the side of the cross-attention maps that are shown where objects are: the UNet's and, at patch 2, the transformer's
GROUNDING = 0.03  # weight of grounding_loss
PROMPTS = (
    "a cat next to a cactus on a yellow background", "a big strawberry on a light blue background", "a red apple",
    "a penguin on snow", "a pizza on a red background", "a rocket on a starry night sky", "a dog face",
    "three bananas on a teal background", "a burger to the left of a cup of coffee", "a sunflower on green grass under a blue sky",
    "a soccer ball", "a robot on a purple background", "an owl above a mushroom", "a cactus on a sandy beach",
    "a tree, a car and a house on a white background", "a teapot on a brown table against a teal wall",
)  # fmt: skip


class Scenes:
    """The last `kept` scenes made: latents, token states, each token's object, objects' masks, where the network is trained."""

    def __init__(self, vae, device, kept: int):
        self.vae, self.device, self.kept, self.columns, self.added = vae, device, kept, [], 0
        self.tokenizer, self.text = minilm()
        self.text.to(device)

    def make(self, rng: np.random.Generator, n: int, samples: int, held_out=False) -> tuple:
        """n scenes for a network that has seen `samples`: pictures (n, 128, 128, 3) uint8, tokens and their mask, and as `columns`."""
        hard, several = min(1.0, samples / 3_000_000), min(1.0, samples / 400_000)
        counts = np.array([0.84, 0.14, 0.015, 0.005]) * (1 - several) + np.array([0.4, 0.46, 0.09, 0.05]) * several
        kw = dict(counts=counts, common_share=0.96 - 0.16 * hard, spread=0.15 + 0.85 * hard)
        scenes = [emoji.sample(rng, held_out, **kw) for _ in range(n)]
        texts = [emoji.caption(s, rng) for s in scenes]
        pictures = np.stack([emoji.render(s) for s in scenes])
        return pictures, *self.read(texts), self.objects_of_tokens(scenes, texts), torch.stack([cells(s) for s in scenes])

    def add(self, pictures, ids, there, *known) -> None:
        latents = torch.cat([encode(self.vae, part, self.device) for part in torch.as_tensor(pictures).split(256)])
        made = (latents, self.encoded(ids, there), *known)
        if not self.columns:
            self.columns = [torch.zeros(self.kept, *part.shape[1:], dtype=part.dtype, device=self.device) for part in made]
        rows = (torch.arange(len(latents)) + self.added).to(self.device) % self.kept
        for column, part in zip(self.columns, made, strict=True):
            column[rows] = part.to(self.device)
        self.added += len(latents)

    def objects_of_tokens(self, scenes: list[emoji.Scene], texts: list[str]) -> torch.Tensor:
        """(n, TOKENS) int8: the first object, from 1 on, of the concept that a token names; 0 for none."""
        read, out = self.tokenizer(texts), torch.zeros(len(texts), TOKENS, dtype=torch.int8)
        for row, (scene, text) in enumerate(zip(scenes, texts)):
            first = {o.concept: i + 1 for i, o in reversed(list(enumerate(scene.objects)))}
            for word, concept in emoji_concepts(text).items():
                start = text.lower().find(word) if concept in first else len(text)
                tokens = {read.char_to_token(row, at) for at in range(start, min(start + len(word), len(text)))}
                out[row, [t for t in tokens if t is not None and t < TOKENS]] = first.get(concept, 0)
        return out

    def read(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, TOKENS) tokens and which of them are the text's."""
        batch = self.tokenizer(texts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt")
        return batch["input_ids"], batch["attention_mask"]

    def states(self, texts: list[str], layer: int = LAYER) -> torch.Tensor:
        """(n, TOKENS, 384) as `embedded.token_states`, in bf16."""
        return self.encoded(*self.read(texts), layer)

    @torch.no_grad()
    def encoded(self, ids, there, layer: int = LAYER) -> torch.Tensor:
        out = torch.zeros(*ids.shape, 384, dtype=torch.bfloat16, device=self.device)
        for rows in there.sum(1).argsort().split(128 if self.device == "cpu" else 1024):  # batches of alike length
            length = int(there[rows].sum(1).max())
            words, mask = (part[rows, :length].to(self.device) for part in (ids, there))
            with autocast(self.device):
                states = self.text(input_ids=words, attention_mask=mask, output_hidden_states=True).hidden_states[layer] * mask[..., None] * 2
            out[rows.to(self.device), :length] = states.bfloat16()
        return out

    def draw(self, n: int) -> list[torch.Tensor]:
        rows = torch.randint(min(self.added, self.kept), (n,), device=self.device)
        return [column[rows].float() for column in self.columns]


def cells(scene: emoji.Scene) -> torch.Tensor:
    """(4, CELLS²) float16: the share of each cell that an object shows; those of one concept share their first one's mask."""
    masks, out = emoji.masks(scene, 64), torch.zeros(4, CELLS * CELLS, dtype=torch.float16)
    chosen = [o.concept for o in scene.objects]
    for concept, mask in zip(chosen, masks.reshape(-1, CELLS, 64 // CELLS, CELLS, 64 // CELLS).mean((2, 4)).reshape(-1, CELLS * CELLS)):
        out[chosen.index(concept)] += torch.from_numpy(mask).half()
    return out.clamp_max(1)


@torch.no_grad()
def encode(vae, pictures: torch.Tensor, device) -> torch.Tensor:
    x = pictures.to(device).permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last) / 127.5 - 1
    with autocast(device):
        return vae.encode(x).latent_dist.mean.float() * vae.config.scaling_factor


def build(size: str):
    config, folder = SIZES[size]
    return PixArtTransformer2DModel if size == "dit" else UNet2DConditionModel, config, folder


def velocity_loss(net, bars, z, c, t, noise, device):
    """Mean squared error of v = α·ε − σ·z (Salimans & Ho, arXiv 2202.00512) at integer timesteps t."""
    alpha, sigma = (b[t].view(-1, 1, 1, 1) for b in bars)
    with autocast(device):  # the UNet passes NO_SIZE by
        out = net(alpha * z + sigma * noise, timestep=t, encoder_hidden_states=c, added_cond_kwargs=NO_SIZE).sample
    return (out.float() - (alpha * noise - sigma * z)).square().mean((1, 2, 3))


def grounding_loss(maps: Maps, objects, masks, signal):
    """How far the cross-attention of the words that name an object leaves it, weighed by `signal` (B,), α_t.

    The token loss of TokenCompose (Wang et al., arXiv 2312.03626, eq. 4), (1 − Σ_{u∈object} A_u / Σ_u A_u)², on the words of
    one object together and on the mean over heads of each layer at CELLS; where its pixel loss asks of every cell whether it is
    the object, ours asks whose it is: −log of the object's words' share among all objects' words in its own cells.
    `objects` (B, TOKENS): 0 or the object from 1 on; `masks` (B, 4, CELLS²).
    """
    of = torch.nn.functional.one_hot(objects.long(), 5)[..., 1:].float()
    there, losses = of.amax(1) * (masks.sum(2) > 0.5), []
    for probs in maps.layers.values():
        if probs.shape[2] == CELLS * CELLS:
            each = (probs.float().mean(1) @ of).transpose(1, 2)  # (B, 4, cells)
            leaves = (1 - (each * masks).sum(2) / each.sum(2).clamp_min(1e-6)).square()
            share = -((each + 1e-6) / (each.sum(1, keepdim=True) + 4e-6)).log()
            whose = (share * masks).sum(2) / masks.sum(2).clamp_min(1e-6)
            losses.append(((leaves + whose) * there).sum(1) / there.sum(1).clamp_min(1) * signal)
    return torch.stack(losses).mean()


@torch.no_grad()
def sheet(net, vae, scenes: Scenes, prompts, device, path, scale=5.0, steps=25) -> None:
    """Prompts, a multiple of eight, drawn by 25 guided DDIM steps, as one picture."""
    scheduler = DDIMScheduler(**SCHEDULE)
    scheduler.set_timesteps(steps)
    c = scenes.states([*prompts, *[""] * len(prompts)]).float().to(device)
    z = torch.randn(len(prompts), net.config.in_channels, 16, 16, generator=torch.Generator().manual_seed(0)).to(device)
    for t in scheduler.timesteps:
        with autocast(device):
            out = net(torch.cat([z, z]), timestep=t.expand(len(c)).to(device), encoder_hidden_states=c, added_cond_kwargs=NO_SIZE).sample
        cond, uncond = out.float().chunk(2)
        z = scheduler.step(uncond + scale * (cond - uncond), t, z).prev_sample
    with autocast(device):
        x = vae.decode(z / vae.config.scaling_factor).sample
    rows = ((x.float().clamp(-1, 1) + 1) * 127.5).byte().permute(0, 2, 3, 1).cpu().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate([np.concatenate(list(rows[i : i + 8]), 1) for i in range(0, len(rows), 8)])).save(path)


def main() -> None:
    args = arguments("emoji-ldm", size="unet", **OPTIONS)
    kind, config, folder = build(args.size)
    vae = PatchAutoencoderKL.from_pretrained(MODELS / "emoji-ldm/vae", torch_dtype=torch.float32)
    train(args, f"emoji-{args.size}", kind, config, MODELS / folder, vae, Scenes, PROMPTS)


def train(args, name: str, kind, config: dict, out: Path, vae, world: type[Scenes], prompts, start_from: Path | None = None) -> None:
    """Go on from the weights in `out`, else begin from those of `start_from` that fit, for `args.minutes`; `runs/<name>.png` shows `prompts` drawn."""
    device = args.device
    torch.backends.cudnn.benchmark = True  # shapes never change
    net = kind.from_pretrained(out, torch_dtype=torch.float32) if (out / "config.json").exists() else kind(**config)
    if start_from and not (out / "config.json").exists():
        before, mine = kind.from_pretrained(start_from, torch_dtype=torch.float32).state_dict(), net.state_dict()
        net.load_state_dict({k: v for k, v in before.items() if v.shape == mine[k].shape}, strict=False)
    net.set_attn_processor(AttnProcessor())  # the fused kernel's backward is slow on a CPU
    vae.eval().requires_grad_(False)
    for part in (net, vae):
        part.to(device, memory_format=torch.channels_last)
    # Measured on two cores from 123,000 samples on, three minutes each, held-out loss at t = 500 and 700 (0.1484 and 0.2331 before):
    # AdamW, 32 a step, 0.1486 and 0.2324; Muon on the matrices, 64 a step, 0.1453 and 0.2281. Its step costs as much as 20 samples do,
    # so batches are large.
    optimiser = MuonAdamW(net, args.lr)
    ema, step, maps = Ema(net, args.ema), 0, Maps()
    net.set_attn_processor({name: Explicit(name, maps) if ".attn2." in name else AttnProcessor() for name in net.attn_processors})
    log = json.loads((out / "training.json").read_text()) if (out / "training.json").exists() else {"samples": 0, "minutes": 0}
    state_path = RUNS / f"{name}.pt"
    if (state := load_state(state_path)) and state["samples"] >= log["samples"]:
        net.load_state_dict(state["net"]), ema.net.load_state_dict(state["ema"]), optimiser.load_state_dict(state["optimiser"])
        log["samples"], log["minutes"] = state["samples"], state["minutes"]
    ema.updates = log["samples"] // args.batch  # a young network changes fast: its average must be short
    bar = DDIMScheduler(**SCHEDULE).alphas_cumprod.to(device)
    bars = (bar.sqrt(), (1 - bar).sqrt())
    test, scenes, start = world(vae, device, 256), world(vae, device, args.kept), log["samples"]
    test.add(*test.make(np.random.default_rng(emoji.HELD_OUT_SEED + 1), 256, 400_000, held_out=True))
    coming = stream(lambda i: scenes.make(np.random.default_rng([args.seed, start, i]), args.chunk, int(start + i * args.chunk * args.reuse)), args.workers)
    fixed = torch.Generator().manual_seed(1)
    test_t, test_noise = torch.randint(0, 1000, (256,), generator=fixed), torch.randn(256, net.config.in_channels, 16, 16, generator=fixed)
    blank = test.states([""]).float().to(device)
    clock, began, drawn, making = Clock(args.minutes), log["minutes"], 0, 0.0
    print(f"{sum(p.numel() for p in net.parameters()) / 1e6:.1f} M parameters, {log['samples']} samples so far", flush=True)

    def held_out() -> float:
        with torch.no_grad():
            z, c = (part.float() for part in test.columns[:2])
            return float(
                torch.cat(
                    [
                        velocity_loss(ema.net, bars, z[i : i + 64], c[i : i + 64], test_t[i : i + 64].to(device), test_noise[i : i + 64].to(device), device)
                        for i in range(0, 256, 64)
                    ]
                ).mean()
            )

    def save() -> None:
        log["minutes"] = round(began + clock.seconds / 60, 1)
        save_state(state_path, net=net, ema=ema.net, optimiser=optimiser, samples=log["samples"], minutes=log["minutes"])
        save_pretrained(ema.net, out)
        DDIMScheduler(**SCHEDULE).save_pretrained(out)
        (out / "training.json").write_text(json.dumps(log | {"held_out_loss": round(held_out(), 4)}, indent=1) + "\n")
        sheet(ema.net, vae, test, prompts, device, RUNS / f"{name}.png")

    while not clock.over:
        while scenes.added < args.chunk * max(args.fill, drawn / args.chunk / args.reuse):
            asked = time.monotonic()
            scenes.add(*next(coming))
            making += time.monotonic() - asked
        # Warm up, hold, and come down over the last third of the sitting, so that each sitting ends well.
        rate = args.lr * min(1, (step + 1) / 200) * min(1, clock.left / (clock.budget * 0.33)) + 1e-6
        optimiser.rate(rate)
        z, c, *known = scenes.draw(args.batch)
        dropped = (torch.rand(len(c)) < 0.1).to(device)
        c = torch.where(dropped[:, None, None], blank, c)
        # Mostly the middle and noisy levels, where it is decided what is shown and where.
        t = (torch.sigmoid(torch.randn(len(z)) * 1.3 + 0.5) * 1000).long().clamp(0, 999)
        t = torch.where(torch.rand(len(z)) < 0.15, torch.randint(0, 1000, t.shape), t).to(device)
        loss = velocity_loss(net, bars, z.contiguous(memory_format=torch.channels_last), c, t, torch.randn_like(z), device).mean()
        grounded = torch.zeros(())
        if known:  # which token names which object, and where it is
            objects, masks = known
            grounded = grounding_loss(maps, objects.masked_fill(dropped[:, None], 0), masks, bars[0][t])
        (loss + GROUNDING * grounded.to(device)).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        ema.update(net)
        step, drawn, log["samples"] = step + 1, drawn + args.batch, log["samples"] + args.batch
        if clock.every(180 if device == "cpu" else 20, "log"):
            print(
                f"{clock.seconds / 60:6.1f} min  {log['samples']} samples  loss {loss.item():.4f}  grounding {grounded.item():.3f}  held-out {held_out():.4f}  ({scenes.added} scenes, {making:.0f} s)",
                flush=True,
            )
        if clock.every(600 if device == "cpu" else 240, "save"):
            save()
    save()
    print(json.dumps(log))


if __name__ == "__main__":
    main()
