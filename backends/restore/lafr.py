"""LAFR (arXiv 2505.23462): a codebook puts the latent of a bad face where good faces' latents lie, and a prior finishes it."""

from __future__ import annotations

from typing import Annotated

from backends.lazy import torch
from backends.registry import method
from backends.restore.aligned import START, finish, timesteps
from backends.restore.face_models import FaceModel
from backends.restore.face_task import RESTORE_FACE, Face, RestoreFace
from backends.spec import Choice, Events, Heat, Image, Images, Slider, Step

NONE, CODEBOOK, ENCODER = "none", "codebook", "fine-tuned encoder"


def components(*latents, n: int = 3):
    """Each latent (1, C, h, w) as an RGB picture of its first n principal components, taken over all of them together: (h, w, 3) uint8 each."""
    rows = torch.cat([z[0].flatten(1).mT for z in latents]).float()
    centre = rows.mean(0)
    axes = torch.linalg.svd(rows - centre, full_matrices=False)[2][:n]
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()  # an axis has no sign of its own
    span = ((rows - centre) @ axes.mT).abs().quantile(0.98, 0).clamp_min(1e-6)
    shown = []
    for z in latents:
        part = (((z[0].flatten(1).mT.float() - centre) @ axes.mT / span).clamp(-1, 1) + 1) * 127.5
        shown.append(part.round().byte().view(*z.shape[2:], n).cpu().numpy())
    return shown


def index_map(at, codes: int) -> Heat:
    """Which of the first group's codes stands at each place; the codes are in the order of how often they are taken."""
    rows = [[float(v) / codes for v in row] for row in at[0, ..., 0].tolist()]
    return Heat(tuple(map(str, range(len(rows)))), tuple(map(str, range(len(rows[0])))), tuple(map(tuple, rows)), "", f"code, 1 = number {codes}")


@method("lafr", task=RESTORE_FACE, needs={"lafr"})
def lafr(
    job: RestoreFace,
    model: FaceModel,
    align: Annotated[
        str, Choice((CODEBOOK, ENCODER, NONE), help="what takes the latent to the good faces'; the encoder has four times the parameters")
    ] = CODEBOOK,
    codes: Annotated[int, Slider(16, 1024, 16, help="how many of each group's codes are looked at, the most used first")] = 1024,
    steps: Annotated[int, Slider(0, 4, 1, help="evaluations of the prior; trained on 1 and 2, with 0 the latent is decoded as it is")] = 1,
    start: Annotated[int, Slider(19, 399, 20, help="timestep, of 1000, that the latent is noised to; later is sharper and less the same person")] = START,
) -> Events:
    """LAFR: latent codebook alignment.

    An autoencoder that saw only good faces encodes bad ones to the wrong place. A small adapter looks each place's features up in a codebook made of
    good faces' and maps the codes back to latents; a change of low rank then lets the prior finish the face in one evaluation. All of it learned from
    600 faces.

    Li et al., arXiv 2505.23462; no code is published, so details are read from the abstract and summaries. Stage 1: ‖z_A − z_H‖₁ with the codebook's
    and a quarter of the commitment's loss. Stage 2: rank 16 in the prior's linear layers; L1, LPIPS-like, the cosine of a second identity network and
    the distance of MTCNN's points, on decoded pictures. Our readings: at each place of 16×16 four codes of 16 numbers, each of 1,024 (one code of 64
    numbers lost more than the adapter gained: 1.07 of the distance to z_H that z_L has), a map that sees the eight neighbours, and that the prior
    starts at the latent noised to t = 39, asked for nothing; it was trained from 199, behind an earlier codebook, and of 39, 99 and 199 the first was
    nearest to the good faces on the examples. With the fine-tuned encoder, or with none, the same prior follows.
    """
    face = Face(job, model)
    yield from face.notes()
    low, total, at = model.encode(face.y), steps + 1, None
    if align == CODEBOOK:
        z, at = model.net["adapter"](low, codes)
    else:
        z = low if align == NONE else model.net["encoder"](face.y)

    def latents():
        """z_L, z and, where the good face is known, z_H as their principal components."""
        named = {"z_L": low} | ({} if align == NONE else {"z_A": z})
        if face.given.reference is not None:
            from backends.denoiser import from_uint8

            named["z_H"] = model.encode(from_uint8(face.given.reference, model.device))
        return Images(tuple(Image(p, name) for name, p in zip(named, components(*named.values()))))

    def aside():
        return (latents(), *((index_map(at, codes),) if at is not None else ()))

    def step(i, x0, caption=""):
        return Step(i, total, lambda: face.show(model.decode(x0), caption), aside, keep=lambda: face.kept(model.decode(x0)))

    yield step(1, z, "aligned and decoded")
    x0, states = z, finish(z, timesteps(steps, start), model.bars["latents"], model.noise(z, job.seed)(), model.finisher)
    for i, (_, x0) in enumerate(states, 2):
        yield step(i, x0)
    named = {"z_L decoded": low} | ({"aligned and decoded": z} if steps else {})
    yield face.result(model.decode(x0), (Images(tuple(face.show(model.decode(v), k) for k, v in named.items())), *aside()))
