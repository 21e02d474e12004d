"""The publishers' Opencpop checkpoints of DiffSinger (MoonInTheRiver/DiffSinger) behind the interface of Singer (see opencpop).

They lie in the repository's releases and on no hub: the host names the folder of an unpacked acoustic model, beside which stand those that
its config.yaml names, the vocoder's and for the end-to-end model the pitch extractor's. `model_ckpt_steps_*.ckpt` holds under `state_dict`
model.fs2., model.denoise_fn. and the chain's buffers. Two kinds: the cascade (0303_opencpop_ds58_midi) predicts the pitch and begins at k = 60
of its decoder's mel; the end-to-end model (0228_opencpop_ds100_rel) begins from noise, and its pitch is heard from the mel it drew.

Pickles are read with `weights_only`; numpy's numbers among them are stood in for by an empty class.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

from backends.audio import bank_files
from backends.audio.opencpop import OpencpopSinger
from backends.audio.singer import SCHEDULE, STEPS
from backends.download import reading
from backends.lazy import torch
from backends.models import Card, device
from backends.spec import BadInput

# Config key -> argument of FastSpeech2MIDI, of SingerDenoiser, of NSFHifiGAN.
ACOUSTIC = {"audio_num_mel_bins": "mels", "hidden_size": "dim", "num_heads": "heads", "enc_layers": "encoder_layers", "dec_layers": "decoder_layers",
            "enc_ffn_kernel_size": "encoder_kernel", "dec_ffn_kernel_size": "decoder_kernel", "dur_predictor_layers": "duration_layers",
            "dur_predictor_kernel": "duration_kernel", "predictor_layers": "pitch_layers", "predictor_kernel": "pitch_kernel", "use_pitch_embed": "pitch"}  # fmt: skip
DENOISER = {"audio_num_mel_bins": "mels", "hidden_size": "condition", "residual_channels": "channels", "residual_layers": "layers",
            "dilation_cycle_length": "dilation_cycle"}  # fmt: skip
VOCODER = {"audio_num_mel_bins": "mels", "upsample_initial_channel": "channels", "upsample_rates": "rates", "upsample_kernel_sizes": "kernels",
           "resblock_kernel_sizes": "block_kernels", "resblock_dilation_sizes": "dilations", "audio_sample_rate": "rate"}  # fmt: skip
# What the configs must say where they say anything.
FIXED = {
    "use_midi": (True,), "timesteps": (STEPS,), "schedule_type": ("linear",), "max_beta": (SCHEDULE["beta_end"],), "diff_decoder_type": ("wavenet",), "rel_pos": (True,),
    "use_pos_embed": (True,), "use_spk_id": (False,), "use_spk_embed": (False,), "use_energy_embed": (False,), "encoder_type": ("fft",), "decoder_type": ("fft",),
    "ffn_act": ("gelu",), "ffn_padding": ("SAME",), "dur_loss": ("mse",), "pitch_type": ("frame",), "pitch_norm": ("log",), "pitch_ar": (False,), "use_uv": (True,), "use_nsf": (True,),
}  # fmt: skip
VOICED = {"resblock": ("1", 1), "use_pitch_embed": (True,)}  # of the vocoder
EXTRACTED = {"pitch_type": ("frame",), "pitch_norm": ("log",), "use_uv": (True,), "ffn_padding": ("SAME",)}  # of the pitch extractor
RENAMED = (  # of the denoiser, applied in turn
    (r"^input_projection", "input"), (r"^mlp", "step"), (r"^residual_layers", "blocks"), (r"^skip_projection", "skip"), (r"^output_projection", "output"),
    (r"\.dilated_conv", ".conv"), (r"\.diffusion_projection", ".step"), (r"\.conditioner_projection", ".condition"), (r"\.output_projection", ".out"),
)  # fmt: skip
REPEATED = re.compile(r"_float_tensor$|\bencoder\.embed_tokens\.")  # markers and an embedding named twice


class _Number:
    """Stands for what numpy's numbers are made of: the best loss and the like, which are not needed."""

    def __init__(self, *_):
        pass

    def __setstate__(self, _):
        pass


NUMPY = [f"{place}.{name}" for place, name in (("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"), ("numpy", "dtype"))]


def configuration(folder: Path, fixed: dict, what: str) -> dict:
    """What the folder's config.yaml says; raises BadInput for another network than `fixed` allows."""
    if not (folder / "config.yaml").is_file():
        raise BadInput(f"{what} has no config.yaml in {folder.name}; unpack its zip whole.")
    given = bank_files.read_yaml(folder / "config.yaml", what)
    if other := [f"{key} = {given[key]}" for key, fit in fixed.items() if key in given and given[key] not in fit]:
        raise BadInput(f"{what} was trained otherwise ({', '.join(other)[:120]}); choose Opencpop's with {STEPS} steps.")
    return given


def tensors_in(folder: Path, what: str) -> dict:
    """`state_dict` of the folder's checkpoint of most steps; raises BadInput where there is none."""
    files = sorted(folder.glob("model_ckpt_steps_*.ckpt"), key=lambda file: int(re.sub(r"\D", "", file.stem) or 0))
    if not files:
        raise BadInput(f"{what} has no model_ckpt_steps_….ckpt in {folder.name}; unpack its zip whole.")
    with torch.serialization.safe_globals([(_Number, name) for name in NUMPY]):
        found = torch.load(files[-1], map_location="cpu", weights_only=True)
    if not (isinstance(found, dict) and isinstance(found.get("state_dict"), dict)):
        raise BadInput(f"{what}: {files[-1].name} holds no state_dict; it is no checkpoint of DiffSinger's.")
    return found["state_dict"]


def beside(folder: Path, given: dict, key: str, what: str) -> Path:
    """The folder that a config names, which stands beside its own."""
    name = Path(str(given.get(key) or "")).name
    if not name or not (folder.parent / name).is_dir():
        raise BadInput(f"{what} has no folder {name or key} beside {folder.name}; unpack that zip there.")
    return folder.parent / name


def bare(tensors: dict) -> dict:
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items() if not REPEATED.search(name)}


def parts_of(tensors: dict) -> dict[str, dict]:
    """An acoustic checkpoint's tensors as `fs2`, `denoise_fn` in our names, and the chain's under the empty name."""
    parts = {"fs2": {}, "denoise_fn": {}, "": {}}
    for name, tensor in bare(tensors).items():
        head, _, rest = name.partition(".")
        if head not in parts or not rest:
            head, rest = "", name
        for pattern, ours in RENAMED if head == "denoise_fn" else ():
            rest = re.sub(pattern, ours, rest)
        parts[head][rest] = tensor
    return parts


def fused(tensors: dict) -> dict:
    """Weight norm folded in: a weight's direction (`weight_v`) and its length (`weight_g`) made one."""
    out = {}
    for name, tensor in tensors.items():
        if name.endswith("weight_v") and (length := tensors.get(f"{name[:-1]}g")) is not None:
            out[name[:-2]] = length * tensor / tensor.flatten(1).norm(dim=1).view(length.shape)
        elif not name.endswith("weight_g"):
            out[name] = tensor
    return out


def fill(net, tensors: dict, what: str):
    """The network with these tensors; raises BadInput that names the first that is missing, unknown or of another shape."""
    own = net.state_dict()
    for said, names in (
        ("lacks", [n for n in own if n not in tensors]),
        ("holds besides", [n for n in tensors if n not in own]),
        ("holds in another shape than its config.yaml says", [n for n in own if n in tensors and own[n].shape != tensors[n].shape]),
    ):
        if names:
            raise BadInput(f"{what} {said} {names[0]}{f' and {len(names) - 1} more' if names[1:] else ''}; it must be as its makers published it.")
    net.load_state_dict(tensors)
    return net


def read(folder: Path, title: str):
    """(FastSpeech2MIDI, SingerDenoiser, NSFHifiGAN, PitchExtractor or None, (low, high), config) of an acoustic model's folder; raises BadInput."""
    from backends.nets import fastspeech_midi, nsf_hifigan
    from backends.nets.diffsinger import SingerDenoiser

    arguments = lambda keys, given: {ours: given[key] for key, ours in keys.items() if key in given}  # noqa: E731
    given = configuration(folder, FIXED, title)
    parts, said = parts_of(tensors_in(folder, title)), arguments(ACOUSTIC, given)
    if "midi_embed.weight" not in parts["fs2"]:
        raise BadInput(f"{title} has no notes in {folder.name}: its acoustic model takes the pitch from a recording. Choose Opencpop's.")
    bars, own = parts[""].get("alphas_cumprod"), torch.linspace(SCHEDULE["beta_start"], SCHEDULE["beta_end"], STEPS)
    if bars is None or bars.shape != own.shape or not torch.allclose(bars, (1 - own).cumprod(0), atol=1e-4):
        raise BadInput(f"{title} was not trained on DiffSinger's {STEPS} noise levels; choose Opencpop's with {STEPS} steps.")
    if missing := {"spec_min", "spec_max"} - set(parts[""]):
        raise BadInput(f"{title} lacks {' and '.join(sorted(missing))}; it must be as its makers published it.")
    hidden = given.get("predictor_hidden") or 0
    said["hidden"] = hidden if hidden > 0 else said.get("dim", fastspeech_midi.SHAPE["dim"])
    acoustic = fill(fastspeech_midi.FastSpeech2MIDI(**fastspeech_midi.SHAPE | said), parts["fs2"], f"{title}'s acoustic model")
    shape = {"condition": 256, "channels": 256, "layers": 20, "dilation_cycle": 1} | arguments(DENOISER, given)
    denoiser = fill(SingerDenoiser(**shape, readout=False), parts["denoise_fn"], f"{title}'s denoiser")

    home, what = beside(folder, given, "vocoder_ckpt", title), f"{title}'s vocoder"
    theirs = configuration(home, VOICED, what)
    theirs["hop_size"] = math.prod(theirs.get("upsample_rates", nsf_hifigan.SHAPE["rates"]))  # what it makes of a frame, whatever it says
    if other := [k for k in ("audio_sample_rate", "hop_size", "audio_num_mel_bins") if k in given and k in theirs and given[k] != theirs[k]]:
        raise BadInput(f"{title} and its vocoder differ in {other[0]} ({given[other[0]]} and {theirs[other[0]]}); they must be made for one another.")
    tensors = tensors_in(home, what).get("model_gen")
    if not isinstance(tensors, dict):
        raise BadInput(f"{what} holds no model_gen; choose the publishers' HifiGAN with NSF.")
    vocoder = fill(nsf_hifigan.NSFHifiGAN(**nsf_hifigan.SHAPE | arguments(VOCODER, theirs)), fused(tensors), what)
    extractor = None
    if given.get("pe_enable"):
        home, what = beside(folder, given, "pe_ckpt", title), f"{title}'s pitch extractor"
        theirs = configuration(home, EXTRACTED, what)
        shape = {"mels": theirs.get("audio_num_mel_bins", 80), "dim": theirs.get("hidden_size", 256), "kernel": theirs.get("predictor_kernel", 5)}
        wide = theirs.get("predictor_hidden") or 0
        extractor = fastspeech_midi.PitchExtractor(**shape, hidden=wide if wide > 0 else shape["dim"])
        fill(extractor, bare(tensors_in(home, what)), what)
    elif acoustic.pitch_predictor is None:
        raise BadInput(f"{title} predicts no pitch and names no pitch extractor (pe_ckpt); choose Opencpop's.")
    return acoustic, denoiser, vocoder, extractor, tuple(parts[""][k].flatten() for k in ("spec_min", "spec_max")), given


def load(card: Card) -> OpencpopSinger:
    """Read and place the checkpoints in and beside the folder that the host named; raises BadInput where they are not there or can't be read."""
    folder, where = Path(card.source), device()
    if not folder.is_dir():
        raise BadInput(f"{card.title} is read from the folder of its acoustic model, which the host names in UNNOISE_MODELS; there is none of that name.")
    # torch.load tells of a broken or refused file in many ways.
    with reading(card, Exception, mend="they must be the checkpoints as their makers published them", other="the embedded singer"):
        *nets, spans, given = read(folder, card.title)
        nets = [net and net.eval().requires_grad_(False).to(where) for net in nets]
        shallow = not given.get("gaussian_start", False)
        deepest = int(given.get("K_step", STEPS))
        if not 0 < deepest <= STEPS or not shallow and deepest < STEPS:
            raise BadInput(f"{card.title} begins at step {deepest}{'' if shallow else ' from noise'} of {STEPS}; choose Opencpop's.")
        return OpencpopSinger(
            replace(card, revision=folder.name), *nets, tuple(s.to(where) for s in spans), deepest, shallow, float(given.get("fmax", 12000)), where
        )
