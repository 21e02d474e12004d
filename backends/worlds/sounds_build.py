"""Build the bank of the sounds world from its packages, and pack the text encoder for machines without its package.

    pip install tinysoundfont==0.3.7 soundfile==0.14.0      # for this script alone
    apt-get download openttd-opensfx sonic-pi-samples timgm6mb-soundfont && for f in *.deb; do dpkg-deb -x $f packages; done
    python -m backends.worlds.sounds_build packages FOLDER  # writes FOLDER/bank.npz and FOLDER/minilm.npz, and assets/examples/*.flac

Sources: OpenSFX 1.0.3 (each recording CC-BY 3.0, CC-BY-SA 3.0 or CC0, the collection CC-BY-SA 3.0), Sonic Pi's samples 3.2.2 (CC0), notes
rendered with TimGM6mb.sf2 1.3 (GPL-2), tones and noises computed here. None of it is committed; models are trained on it.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from backends.worlds import sounds
from backends.worlds.sounds import EFFECTS, INSTRUMENTS, NOTES, RATE, STEP, SUSTAINED

# key of EFFECTS: numbers in OpenSFX's catalogue
OPENSFX = {
    "splat": (2,), "factory whistle": (3,), "steam train": (4,), "ship horn": (6, 7), "propeller plane": (8, 69), "jet": (9, 61), "train horn": (10,),
    "machinery": (11,), "sparks": (12,), "steam": (13,), "level crossing": (14,), "crash": (17, 19), "explosion": (18,), "cash register": (20,), "morse": (22,),
    "helicopter": (24,), "truck": (25,), "bus": (27, 28), "applause": (29,), "ooh": (30,), "jackhammer": (33,), "car horn": (35,), "sheep": (36,),
    "cow": (37,), "horse": (38,), "anvil": (39,), "saw": (40,), "bubbles": (51,), "slurp": (49,), "wind": (52, 57), "tree": (54, 55),
    "chainsaw": (56,), "train": (65, 71), "tropical bird": (66, 72), "lion": (67,), "monkeys": (68,),
}  # fmt: skip
SONIC_PI = {
    "crow": ("misc_crow",), "burp": ("misc_burp",), "hand bell": ("perc_bell", "perc_bell2"), "finger snap": ("perc_snap", "perc_snap2"), "door": ("perc_door",),
    "whoosh": ("perc_swoosh", "perc_swash", "ambi_swoosh"), "thud": ("perc_impact1", "perc_impact2"), "record scratch": ("vinyl_scratch",), "vinyl": ("vinyl_hiss",),
    "rewind": ("vinyl_rewind",), "wine glass": ("ambi_glass_rub",), "boom": ("misc_cineboom", "bd_boom"), "drum roll": ("drum_roll",),
    "cowbell": ("drum_cowbell",), "snare drum": ("drum_snare_hard", "drum_snare_soft", "sn_generic"), "kick drum": ("drum_heavy_kick", "drum_bass_hard", "bd_haus"),
    "tom": ("drum_tom_hi_hard", "drum_tom_mid_hard", "drum_tom_lo_hard"), "cymbal": ("drum_cymbal_hard", "drum_splash_hard"), "hi-hat": ("drum_cymbal_closed", "drum_cymbal_pedal"),
    "tabla": ("tabla_na", "tabla_ghe4", "tabla_re"), "drum loop": ("loop_amen", "loop_breakbeat"), "robot": ("mehackit_robot1", "mehackit_robot3", "glitch_robot1"),
    "toy phone": ("mehackit_phone1", "mehackit_phone2"), "cash register": ("perc_till",),
}  # fmt: skip
# (bank, programme, note) of TimGM6mb.sf2
SOUNDFONT = {
    "seashore": ((0, 122, 60),), "bird": ((0, 123, 60),), "telephone": ((0, 124, 60),), "gun": ((0, 127, 60),), "applause": ((0, 126, 60),), "helicopter": ((0, 125, 60),),
    "reverse cymbal": ((0, 119, 60),), "timpani": ((0, 47, 43), (0, 47, 48)), "hand clap": ((128, 0, 39),), "tambourine": ((128, 0, 54),), "bongo": ((128, 0, 60), (128, 0, 61)),
    "maracas": ((128, 0, 70),), "wood block": ((128, 0, 76), (128, 0, 77)), "triangle": ((128, 0, 81),), "referee": ((128, 0, 72),), "cymbal": ((128, 0, 49),),
    "snare drum": ((128, 0, 38),), "kick drum": ((128, 0, 36),),
}  # fmt: skip
EXAMPLES = Path(__file__).resolve().parents[2] / "assets" / "examples"
LONGEST = {True: 1.9, False: 1.5}  # seconds kept of an effect that lasts, and of one that doesn't


def opensfx(folder: Path) -> dict[int, np.ndarray]:
    """Catalogue: (offset, size) pairs, bit 31 set on the first; at an offset a length-prefixed title, then a WAV file."""
    data = next(folder.rglob("opensfx.cat")).read_bytes()
    out = {}
    for i in range((struct.unpack_from("<I", data)[0] & 0x7FFFFFFF) // 8):
        at = struct.unpack_from("<I", data, 8 * i)[0] & 0x7FFFFFFF
        wave = at + 1 + data[at]
        rate, bits = struct.unpack_from("<I", data, wave + 24)[0], struct.unpack_from("<H", data, wave + 34)[0]
        begin = data.index(b"data", wave)
        raw = data[begin + 8 : begin + 8 + struct.unpack_from("<I", data, begin + 4)[0]]
        out[i] = to_rate(np.frombuffer(raw, "<i2").astype(np.float32) / 32768 if bits == 16 else np.frombuffer(raw, np.uint8) / 128.0 - 1, rate)
    return out


def to_rate(x: np.ndarray, rate: int) -> np.ndarray:
    common = np.gcd(rate, RATE)
    return resample_poly(x, RATE // common, rate // common).astype(np.float32) if len(x) else x


def note(synth, sfid: int, bank: int, programme: int, key: int, held: float, seconds: float) -> np.ndarray:
    """One note on a 32 kHz synthesiser, mono, brought to RATE."""
    synth.sounds_off(0), synth.program_select(0, sfid, bank, programme, is_drums=bank == 128)
    synth.noteon(0, key, 110)
    first = np.frombuffer(synth.generate(int(held * 32_000)), np.float32)
    synth.noteoff(0, key)
    rest = np.frombuffer(synth.generate(int((seconds - held) * 32_000) + 1), np.float32)
    synth.sounds_off(0), synth.generate(8_000)
    return to_rate(np.concatenate([first, rest]).reshape(-1, 2).mean(1), 32_000)


def computed(name: str, rng: np.random.Generator) -> np.ndarray:
    t = np.arange(int(1.9 * RATE)) / RATE
    if name == "siren":  # between 600 and 1,200 Hz and back
        return np.sin(2 * np.pi * np.cumsum(900 - 300 * np.cos(2 * np.pi * t / 0.95)) / RATE)
    if name == "static":
        return rng.normal(size=len(t)) * (0.7 + 0.3 * np.sin(2 * np.pi * 0.53 * t)) * 0.3
    if name == "clock":  # ticks every 0.475 s, of two heights in turn
        return sum(np.where(t >= k * 0.475, np.exp(-(t - k * 0.475).clip(0) * 250), 0) * np.sin(2 * np.pi * (2400 + 700 * (k % 2)) * t) for k in range(4))
    if name == "heartbeat":  # two thumps every 0.95 s
        beats = (0.05, 0.33, 1.0, 1.28)
        return sum(np.where(t >= b, np.exp(-(t - b).clip(0) * 22), 0) * np.sin(2 * np.pi * 62 * (t - b).clip(0)) for b in beats)
    if name == "alarm":
        return np.sin(2 * np.pi * 1000 * t) * (np.mod(t, 0.38) < 0.19) * (1 + 0.3 * np.sin(2 * np.pi * 2000 * t))
    t = t[: int(0.7 * RATE)]
    height = 250 * 16 ** (t / 0.7 if name == "sweep up" else 1 - t / 0.7)
    return np.sin(2 * np.pi * np.cumsum(height) / RATE)


def beep(key: int) -> np.ndarray:
    t = np.arange(int(1.2 * RATE)) / RATE
    f = 440 * 2 ** ((key - 69) / 12)
    return sum(np.sin(2 * np.pi * f * k * t) / k for k in (1, 3, 5) if f * k < 7_500)


def trimmed(x: np.ndarray, seconds: float) -> np.ndarray:
    """Without the silence before and after, at most `seconds`, peak 1, faded out where it was cut."""
    x = x - x.mean()
    x = x / (np.abs(x).max() + 1e-9)
    loud = np.flatnonzero(np.abs(x) > 0.006)
    x = x[max(0, loud[0] - 16) : loud[-1] + 1][: int(seconds * RATE)]
    fade = min(len(x) // 4, 400)
    x[len(x) - fade :] *= np.linspace(1, 0, fade)
    return x / np.abs(x).max()


def level(x: np.ndarray) -> float:
    """Gain to an RMS of 0.2 over the loudest quarter of a second, at most 1 (a row's peak is 1)."""
    window = min(len(x), RATE // 4)
    power = np.convolve(x**2, np.ones(window) / window, "valid").max() * window / (RATE // 4)
    return float(min(1.0, 0.2 / np.sqrt(power)))


def bank(packages: Path) -> dict[str, np.ndarray]:
    import soundfile
    import tinysoundfont

    synth, rng = tinysoundfont.Synth(samplerate=32_000), np.random.default_rng(0)
    sfid = synth.sfload(str(next(packages.rglob("TimGM6mb.sf2"))))
    rows, audio, gains = {}, [], []

    def add(name: str, x: np.ndarray) -> None:
        rows.setdefault(name, []).append(len(audio))
        audio.append(sounds.mu_law_encode(x)), gains.append(level(x))

    for name, (programme, lowest) in INSTRUMENTS.items():
        for i in range(NOTES):
            key = lowest + i * STEP
            held = 1.15 if name in SUSTAINED else 0.9
            add(name, trimmed(beep(key) if programme < 0 else note(synth, sfid, 0, programme, key, held, 1.2), 1.2 if name in SUSTAINED else 1.05))
    catalogue = opensfx(packages)
    for name, (_, _, lasting) in EFFECTS.items():
        found = [catalogue[i] for i in OPENSFX.get(name, ())]
        for stem in SONIC_PI.get(name, ()):
            x, rate = soundfile.read(next(packages.rglob(f"{stem}.flac")), dtype="float32", always_2d=True)
            found.append(to_rate(x.mean(1), rate))
        found += [note(synth, sfid, *where, 1.6, 2.0) for where in SOUNDFONT.get(name, ())]
        for x in found or [computed(name, rng)]:
            add(name, trimmed(x, LONGEST[lasting]))
    return {"audio": np.concatenate(audio), "lengths": np.array([len(x) for x in audio], np.int32), "gains": np.array(gains, np.float32),
            "rows": np.frombuffer(json.dumps(rows).encode(), np.uint8)}  # fmt: skip


def packed_minilm(words: set[str]) -> dict[str, np.ndarray]:
    """MiniLM up to `LAYER`, of its word pieces only those of `words`: matrices in 7 bits with a scale a row, the rest in fp16."""
    from backends.embedded import LAYER, minilm

    tokenizer, model = minilm()
    pieces = {word: tokenizer(word, add_special_tokens=False)["input_ids"] for word in sorted(words)}
    kept = sorted({tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id, *(i for ids in pieces.values() for i in ids)})
    new = {old: i for i, old in enumerate(kept)}
    config = model.config.to_dict() | {
        "vocab_size": len(kept),
        "num_hidden_layers": model.config.num_hidden_layers + 1 + LAYER,
        "max_position_embeddings": 64,
        "pad_token_id": new[tokenizer.pad_token_id],
    }
    keep = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "hidden_act",
        "max_position_embeddings",
        "type_vocab_size",
        "layer_norm_eps",
        "pad_token_id",
    )
    meta = {"config": {k: config[k] for k in keep}, "words": {w: [new[i] for i in ids] for w, ids in pieces.items()},
            "around": [new[tokenizer.cls_token_id], new[tokenizer.sep_token_id]]}  # fmt: skip
    out = {"meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)}
    for name, tensor in model.state_dict().items():
        if name.startswith("encoder.layer.") and int(name.split(".")[2]) >= config["num_hidden_layers"] or name.startswith("pooler") or "position_ids" in name:
            continue
        x = tensor.float().numpy()
        x = x[kept] if "word_embeddings" in name else x[:64] if "position_embeddings" in name else x
        if x.ndim == 2 and len(x) > 64:
            scale = np.abs(x).max(1, keepdims=True) / 63
            out[name], out[name + ".scale"] = np.round(x / scale).astype(np.int8), scale.astype(np.float16)
        else:
            out[name] = x.astype(np.float16)
    return out


def vocabulary(n: int = 60_000) -> set[str]:
    """Every word of the world's captions."""
    from backends.train.sounds_text import words_of

    rng = np.random.default_rng(1)
    plans = [sounds._draw(rng) for _ in range(n)]
    return {word for plan in plans for word in words_of(sounds.caption(plan, rng))}


def write_examples(path: Path) -> None:
    """Sounds to edit, from tones and noises computed here alone, so that they owe nothing to the packages."""
    import soundfile
    import torch

    made = sounds.Bank(path)
    parts = {"beeps_rising": sounds.Part("electronic beep", "up", "slow", "low"), "clock": sounds.Part("clock")}
    for name, part in parts.items():
        layout = sounds.events(sounds.Plan((part,)), made, np.random.default_rng(0))
        wave = sounds.render(made, torch.from_numpy(layout)[None])[0].numpy()
        soundfile.write(EXAMPLES / f"{name}.flac", wave, RATE, subtype="PCM_16")


def main() -> None:
    packages, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    made = bank(packages)
    np.savez_compressed(out / "bank.npz", **made)
    write_examples(out / "bank.npz")
    words = vocabulary()
    np.savez_compressed(out / "minilm.npz", **packed_minilm(words))
    print(f"{len(made['lengths'])} rows, {len(made['audio']) / RATE:.0f} s, {len(words)} words;", {p.name: p.stat().st_size for p in out.glob("*.npz")})


if __name__ == "__main__":
    main()
