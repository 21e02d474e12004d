"""The publishers' checkpoints of StoRM and SGMSE+ (sp-uhh) behind the same SpeechModel.

Lightning's `.ckpt`: `state_dict` holds NCSN++ under denoiser_net. and score_net. (StoRM) or dnn. (SGMSE+), `ema` the averages of its
parameters in their order, `hyper_parameters` the network's and the transform's. They lie on a file share and on no hub: the host names a
folder with one such file. Pickles are read with `weights_only`; the one class that they may name is stood in for by an empty one.
"""

from __future__ import annotations

import logging
from pathlib import Path

from backends.audio.speech_models import SpeechModel
from backends.lazy import torch
from backends.models import Card, device
from backends.spec import BadInput

ALLOWED = ("sgmse.data_module.SpecsDataModule",)  # what hyper_parameters name beside plain values
MULTIPLE = 64  # frames
FACTOR = {"storm": 0.33, "sgmse": 0.15}  # of spectrograms, where hyper_parameters are silent: each repository's default
NETS = {"storm": {"denoiser_net.": "predictive", "score_net.": "storm"}, "sgmse": {"dnn.": "sgmse"}}
log = logging.getLogger(__name__)


class _Named:
    """Stands for a class that is only named."""


def read(path: Path, kind: str) -> tuple[dict, float]:
    """({part: network}, the spectrograms' factor) of a checkpoint of `kind` "storm" or "sgmse"; raises BadInput where it is another."""
    from backends.nets.ncsnpp import NAMED, NCSNpp

    with torch.serialization.safe_globals([(_Named, name) for name in ALLOWED]):
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    tensors, given = checkpoint["state_dict"], dict(checkpoint.get("hyper_parameters", {}))
    transform = {"spec_abs_exponent": 0.5, "n_fft": 510, "hop_length": 128}
    other = [f"{k} = {given[k]}" for k, v in transform.items() if given.get(k, v) != v]
    if given.get("sde", "ouvesde") not in ("ouve", "ouvesde") or given.get("loss_type", "score_matching") == "data_prediction" or other:
        raise BadInput(
            f"This checkpoint was trained otherwise than the papers' ({', '.join(other) or given.get('sde')}); choose StoRM's or SGMSE+'s at 16 kHz."
        )
    nets = {}
    for prefix, part in NETS[kind].items():
        mine = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if not mine:
            raise BadInput(f"The checkpoint holds no {prefix[:-1]}; it is not one of {kind}.")
        channels, timed = mine["output_layer.weight"].shape[1], part != "predictive"
        backbone = given.get(f"backbone_{'denoiser' if part == 'predictive' else 'score'}", given.get("backbone", ""))
        config = given.get("shrunk") or NAMED.get(backbone) or (NAMED["ncsnpplarge"] if kind == "sgmse" else {})
        net = NCSNpp(channels, timed, bool(given.get("centered", kind == "sgmse")), **config)
        net.load_state_dict(mine)
        nets[part] = net
    averages = checkpoint.get("ema", {}).get("shadow_params")
    parameters = [p for net in nets.values() for p in net.parameters()]
    if averages is not None:
        if len(averages) == sum(p.requires_grad for p in parameters):  # older torch_ema leaves the others out
            parameters = [p for p in parameters if p.requires_grad]
        for mine, average in zip(parameters, averages, strict=True):
            mine.data.copy_(average)
    return nets, float(given.get("spec_factor", FACTOR[kind]))


def load(card: Card) -> SpeechModel:
    """The checkpoint in the folder that the host named; raises BadInput when there is none or it can't be read."""
    folder, where = Path(card.source), device()
    files = sorted(folder.glob("*.ckpt")) if folder.is_dir() else []
    if len(files) != 1:
        raise BadInput(f"{card.title} lies on no hub: the host names a folder with its one .ckpt file in UNNOISE_MODELS; there are {len(files)}.")
    try:
        nets, factor = read(files[0], card.options["kind"])
    except BadInput:
        raise
    except (MemoryError, torch.OutOfMemoryError):
        raise BadInput(f"There is not enough memory for {card.title}; choose the embedded model.") from None
    except Exception as error:  # torch.load tells of a broken or refused file in many ways
        log.exception("%s could not be read", card.name)
        raise BadInput(f"The file of {card.title} can't be read ({type(error).__name__}); it must be a checkpoint as sp-uhh published it.") from error
    for net in nets.values():
        net.eval().requires_grad_(False).to(where)
    return SpeechModel(card, nets, where, factor=factor, multiple=MULTIPLE)
