"""The publishers' checkpoints of StoRM and SGMSE+ (sp-uhh) behind the same SpeechModel.

Lightning's `.ckpt`: `state_dict` holds NCSN++ under denoiser_net. and score_net. (StoRM) or dnn. (SGMSE+), `ema` the averages of its
parameters in their order, `hyper_parameters` the network's and the transform's. StoRM's lie on a file share and on no hub: the host names
a folder with one such file. Pickles are read with `weights_only`; the one class that they may name is stood in for by an empty one.
What would be read wrongly without a word, such as ncsnpp_v2, whose tensors have the same names, is refused by its hyper-parameters.
"""

from __future__ import annotations

from pathlib import Path

from backends.audio import ouve
from backends.audio.speech_models import RATE, SpeechModel
from backends.download import fetch, reading
from backends.lazy import torch
from backends.models import Card, device
from backends.spec import BadInput

ALLOWED = ("sgmse.data_module.SpecsDataModule",)  # what hyper_parameters name beside plain values
MULTIPLE = 64  # frames
FACTOR = {"storm": 0.33, "sgmse": 0.15}  # of spectrograms, where hyper_parameters are silent: each repository's default
NETS = {"storm": {"denoiser_net.": "predictive", "score_net.": "storm"}, "sgmse": {"dnn.": "sgmse"}}
# What hyper_parameters must say of the transform and the process where they say anything.
FIXED = {
    "sde": ("ouve", "ouvesde"), "theta": (ouve.THETA,), "sigma_min": (ouve.SIGMA_MIN,), "sigma_max": (ouve.SIGMA_MAX,), "t_eps": (ouve.T_EPS,),
    "n_fft": (510,), "hop_length": (128,), "window": ("hann",), "spec_abs_exponent": (0.5,), "transform_type": ("exponent",), "sr": (RATE,),
    "normalize": ("noisy",), "condition": ("both",), "spatial_channels": (1,), "loss_type": ("mse", "score_matching"), "network_scaling": (None,),
    "c_in": ("1",), "c_out": ("1",), "c_skip": ("0",),
}  # fmt: skip


class _Named:
    """Stands for a class that is only named."""


def configuration(kind: str, part: str, given: dict) -> dict:
    """NCSNpp's arguments beside `channels` and `timed`; raises BadInput for another network."""
    from backends.nets import ncsnpp

    name = given.get("backbone") or given.get(f"backbone_{'denoiser' if part == 'predictive' else 'score'}") or "ncsnpp"
    # One name, two sizes: each repository's own.
    known = ncsnpp.NAMED | {"ncsnpp": ncsnpp.SMALL if kind == "storm" else ncsnpp.LARGE}
    if name not in known:
        raise BadInput(f"The checkpoint holds the network {name}; {', '.join(sorted(known))} can be read.")
    # StoRM's repository, which alone knows spatial channels, shifts what goes in unless told otherwise; SGMSE+'s does not.
    centred = given.get("centered", kind == "sgmse" and "spatial_channels" not in given)
    return known[name] | {"centred": bool(centred)}


def read(path: Path, kind: str) -> tuple[dict, float]:
    """({part: network}, the spectrograms' factor) of a checkpoint of `kind` "storm" or "sgmse"; raises BadInput where it is another."""
    from backends.nets.ncsnpp import NCSNpp

    with torch.serialization.safe_globals([(_Named, name) for name in ALLOWED]):
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    tensors, given = checkpoint["state_dict"], dict(checkpoint.get("hyper_parameters", {}))
    if other := [f"{k} = {given[k]}" for k, fit in FIXED.items() if k in given and given[k] not in fit]:
        raise BadInput(f"This checkpoint was trained otherwise than the papers' ({', '.join(other)}); choose StoRM's or SGMSE+'s at 16 kHz.")
    nets = {}
    for prefix, part in NETS[kind].items():
        mine = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if not mine:
            raise BadInput(f"The checkpoint holds no {prefix[:-1]}; it is not one of {kind}.")
        channels = {"predictive": 2, "sgmse": 4, "storm": 6}[part]
        net = NCSNpp(channels, part != "predictive", **configuration(kind, part, given))
        net.load_state_dict(mine)
        nets[part] = net
    averages = checkpoint.get("ema", {}).get("shadow_params")
    parameters = [p for net in nets.values() for p in net.parameters()]
    if averages is not None:
        if len(averages) == sum(p.requires_grad for p in parameters):  # older torch_ema leaves the others out
            parameters = [p for p in parameters if p.requires_grad]
        for mine, average in zip(parameters, averages, strict=True):
            if mine.shape != average.shape:
                raise BadInput("The checkpoint's averages are not those of its network.")
            mine.data.copy_(average)
    return nets, float(given.get("spec_factor", FACTOR[kind]))


def file_of(card: Card) -> Path:
    """The checkpoint in the folder that the host named, or from the hub where the card pins one; raises BadInput."""
    folder = Path(card.source)
    if not folder.is_dir() and "files" in card.options:
        return fetch(card) / card.options["files"][0]
    files = sorted(folder.glob("*.ckpt")) if folder.is_dir() else []
    if len(files) != 1:
        raise BadInput(f"{card.title} is read from a folder with one .ckpt file, which the host names in UNNOISE_MODELS; {len(files)} were found.")
    return files[0]


def load(card: Card) -> SpeechModel:
    """Find, read and place a checkpoint; raises BadInput when there is none or it can't be read."""
    path, where = file_of(card), device()
    # torch.load tells of a broken or refused file in many ways.
    with reading(card, Exception, mend="it must be a checkpoint as sp-uhh published it", other="the embedded model"):
        nets, factor = read(path, card.options["kind"])
        for net in nets.values():
            net.eval().requires_grad_(False).to(where)
    return SpeechModel(card, nets, where, factor=factor, multiple=MULTIPLE)
