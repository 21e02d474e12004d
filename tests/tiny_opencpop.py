"""Opencpop's checkpoints as the official DiffSinger code saves them, at small widths, each tensor filled by a formula of its name and shape."""

import re
import zlib

import numpy as np
import torch
import yaml

from backends.audio.singer import SCHEDULE, STEPS
from backends.nets.diffsinger import SingerDenoiser
from backends.nets.fastspeech_midi import SHAPE, FastSpeech2MIDI, PitchExtractor
from backends.nets.nsf_hifigan import NSFHifiGAN

TINY = SHAPE | dict(dim=16, hidden=16, encoder_layers=2, decoder_layers=1, duration_layers=2, pitch_layers=2)
WAVENET = dict(mels=80, condition=16, channels=16, layers=3, dilation_cycle=4)
VOICE = dict(mels=80, channels=16, rates=(8, 4, 4), kernels=(16, 8, 8), block_kernels=(3, 5), dilations=((1, 3, 5), (1, 3, 5)))
CONFIG = {
    "use_midi": True, "timesteps": 100, "K_step": 60, "schedule_type": "linear", "max_beta": 0.06, "diff_decoder_type": "wavenet", "rel_pos": True, "use_spk_embed": False,
    "audio_num_mel_bins": 80, "audio_sample_rate": 24000, "hop_size": 128, "fmin": 30, "fmax": 12000, "hidden_size": 16, "predictor_hidden": -1, "num_heads": 2,
    "enc_layers": 2, "dec_layers": 1, "enc_ffn_kernel_size": 9, "dec_ffn_kernel_size": 9, "predictor_layers": 2, "predictor_kernel": 5, "dur_predictor_layers": 2,
    "dur_predictor_kernel": 3, "residual_layers": 3, "residual_channels": 16, "dilation_cycle_length": 4, "gaussian_start": False, "use_pitch_embed": True,
    "pitch_type": "frame", "use_uv": True, "use_nsf": True, "pe_enable": False, "pe_ckpt": "", "vocoder_ckpt": "checkpoints/0109_hifigan_bigpopcs_hop128",
}  # fmt: skip
END_TO_END = {"K_step": 100, "gaussian_start": True, "use_pitch_embed": False, "pe_enable": True, "pe_ckpt": "checkpoints/0102_xiaoma_pe"}
VOCODER = {"resblock": "1", "upsample_rates": [8, 4, 4], "upsample_kernel_sizes": [16, 8, 8], "upsample_initial_channel": 16, "resblock_kernel_sizes": [3, 5],
           "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5]], "use_pitch_embed": True, "audio_sample_rate": 24000, "hop_size": 128}  # fmt: skip
WAVENET_NAMES = (("blocks.", "residual_layers."), (".conv.", ".dilated_conv."), (".condition.", ".conditioner_projection."), (".out.", ".output_projection."))


def acoustic_names(net: FastSpeech2MIDI) -> dict[str, torch.Size]:
    """The official module's tensors: name -> shape."""
    out = {name: tensor.shape for name, tensor in net.state_dict().items()}
    out["encoder.embed_tokens.weight"] = out["encoder_embed_tokens.weight"]
    return out | positions(out)


def positions(names) -> dict[str, torch.Size]:
    return {name.replace("pos_embed_alpha", "embed_positions._float_tensor"): torch.Size([1]) for name in names if name.endswith("pos_embed_alpha")}


def wavenet_names(net: SingerDenoiser) -> dict[str, torch.Size]:
    out = {}
    for name, tensor in net.state_dict().items():
        name = re.sub(r"^(input|skip|output)\.", r"\1_projection.", re.sub(r"^step\.", "mlp.", name))
        if name.startswith("blocks."):
            name = name.replace(".step.", ".diffusion_projection.")
            for ours, theirs in WAVENET_NAMES:
                name = name.replace(ours, theirs)
        out[name] = tensor.shape
    return out


def vocoder_names(net: NSFHifiGAN) -> dict[str, torch.Size]:
    """With weight norm, as it is trained."""
    out = {}
    for name, tensor in net.state_dict().items():
        if name.endswith(".weight") and not name.startswith(("noise_convs", "m_source")):
            out |= {f"{name}_g": torch.Size([len(tensor), 1, 1]), f"{name}_v": tensor.shape}
        else:
            out[name] = tensor.shape
    return out


def filled(names: dict[str, torch.Size]) -> dict[str, torch.Tensor]:
    out = {}
    for name, shape in names.items():
        count = shape.numel()
        own = name.replace("encoder.embed_tokens", "encoder_embed_tokens")  # one tensor of two names
        wave = torch.cos(torch.arange(count, dtype=torch.float64) ** 1.5 + zlib.crc32(own.encode()) % 1000).view(shape).float()
        if name.endswith(("num_batches_tracked", "_float_tensor")):
            out[name] = torch.zeros(shape, dtype=torch.long if name.endswith("tracked") else torch.float32)
        elif re.search(r"norm\d?\.weight|\.3\.weight|layers\.\d\.2\.weight|running_var|weight_g|alpha", name):
            out[name] = 1 + 0.2 * wave
        else:
            out[name] = wave * (0.2 if len(shape) < 2 else 1.7 * (count / shape[0]) ** -0.5)
    if "dur_predictor.linear.bias" in out:
        out["dur_predictor.linear.bias"] += 2
    if "pitch_predictor.linear.bias" in out:
        out["pitch_predictor.linear.bias"] += torch.tensor([8.2, -0.1])
    return out


def meta(kind, **shape):
    with torch.device("meta"):
        return kind(**shape)


def chain() -> dict[str, torch.Tensor]:
    betas = torch.linspace(SCHEDULE["beta_start"], SCHEDULE["beta_end"], STEPS)
    return {
        "betas": betas,
        "alphas_cumprod": (1 - betas).cumprod(0),
        "spec_min": torch.full((1, 1, 80), -6.0),
        "spec_max": torch.linspace(-0.8, -1.6, 80).view(1, 1, 80),
    }


def acoustic(pitch: bool = True) -> dict[str, torch.Tensor]:
    parts = {"fs2": filled(acoustic_names(meta(FastSpeech2MIDI, **TINY | {"pitch": pitch}))),
             "denoise_fn": filled(wavenet_names(meta(SingerDenoiser, **WAVENET, readout=False)))}  # fmt: skip
    return {f"model.{part}.{name}": t for part, tensors in parts.items() for name, t in tensors.items()} | {f"model.{k}": t for k, t in chain().items()}


def extractor() -> dict[str, torch.Tensor]:
    net = meta(PitchExtractor, dim=16, hidden=16)
    shapes = {name: tensor.shape for name, tensor in net.state_dict().items()}
    return filled(shapes | positions(shapes))


def saved(folder, config: dict, tensors: dict, steps: int = 160000):
    """As the official trainer writes a checkpoint, with a number of numpy's among the tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    whole = {"epoch": 3, "global_step": steps, "checkpoint_callback_best": np.float64(0.3), "optimizer_states": [{"state": {0: {"step": 1, "exp_avg": torch.zeros(2)}}}],
             "lr_schedulers": [], "state_dict": tensors}  # fmt: skip
    torch.save(whole, folder / f"model_ckpt_steps_{steps}.ckpt")
    return folder


def checkpoints(home, end_to_end: bool = False, **changes):
    """The published folders under `home`; gives the acoustic model's."""
    own = CONFIG | (END_TO_END if end_to_end else {}) | changes
    voice = {"model_gen": filled(vocoder_names(meta(NSFHifiGAN, **VOICE))), "model_disc": {"mpd": torch.zeros(1)}}
    saved(home / "0109_hifigan_bigpopcs_hop128", VOCODER, voice, 1512000)
    if own["pe_enable"]:
        tensors = {f"model.{name}": t for name, t in extractor().items()}
        saved(home / "0102_xiaoma_pe", {"hidden_size": 16, "predictor_hidden": -1, "pitch_type": "frame", "audio_num_mel_bins": 80}, tensors, 60000)
    return saved(home / ("0228_opencpop_ds100_rel" if end_to_end else "0303_opencpop_ds58_midi"), own, acoustic(own["use_pitch_embed"]))
