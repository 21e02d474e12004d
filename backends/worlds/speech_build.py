"""Build the speech world from Debian's packages: a corpus to train on and the committed test clips.

    apt-get download asterisk-core-sounds-{en,es,fr,it,ru}-g722 openttd-opensfx sonic-pi-samples ufoai-sound
    for d in *.deb; do dpkg -x $d .; done
    pip install pyroomacoustics==0.10.1 av==18.1.0 soundfile==0.14.0     # not needed by the studio
    python -m backends.worlds.speech_build FOLDER runs/speech.safetensors

Readers: Allison Smith (English and Spanish), June Wallack (French), Carlo Flora (Italian) for training, a twelfth of their files
for validation; the Russian reader of ivrvoice.ru is in the test clips only. Noises and rooms are split too, noises by their
name's hash; UFO: Alien Invasion's sounds (GPL) are heard in training only.
"""

import io
import json
import re
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import av
import numpy as np
import pyroomacoustics
import soundfile
import torch

from backends.worlds.speech import HERE, RATE, cut, mix, write

MINUTES = {"en_US_f_Allison": 5.0, "es_MX_f_Allison": 2.5, "fr_CA_f_June": 6.0, "it_IT_m_Carlo": 7.0}  # of training speech
TEST_READER = "ru_RU_f_IvrvoiceRU"
ROOMS = {"train": 72, "validation": 16, "test": 12}
CLIPS = 12


def part(name: str) -> str:
    """The split a sound belongs to, by its name alone."""
    return {0: "validation", 1: "test", 2: "test"}.get(zlib.crc32(name.encode()) % 12, "train")


def decode(source, **options) -> np.ndarray:
    """(T,) float32 at 16 kHz, channels averaged by the resampler."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    with av.open(source, **options) as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)] + resampler.resample(None)
    return np.concatenate([frame.to_ndarray().ravel() for frame in frames]).astype(np.float32)


def speech(folder: Path) -> dict[str, np.ndarray]:
    """split -> all readings of it, one after another; too short ones (under 2 s) and silences left out."""
    found = {"train": [], "validation": [], "test": []}
    for reader in (*MINUTES, TEST_READER):
        files = [f for f in (folder / "usr/share/asterisk/sounds" / reader).rglob("*.g722") if f.stat().st_size > 2 * 8000]
        seconds = {"train": 0.0, "validation": 0.0, "test": 0.0}
        limit = {"train": 60 * MINUTES.get(reader, 0), "validation": 25.0, "test": 300.0}
        for f in sorted(files, key=lambda f: zlib.crc32(f.stem.encode())):
            split = "test" if reader == TEST_READER else "validation" if part(f.stem) == "validation" else "train"
            if "silence" not in str(f) and seconds[split] < limit[split]:
                sound = decode(str(f), format="g722")
                found[split].append(sound * (0.06 / np.sqrt((sound**2).mean())))  # readers at one level
                seconds[split] += len(sound) / RATE
    return {split: np.concatenate(sounds) for split, sounds in found.items()}


def sounds(folder: Path):
    """(name, credit, split or None, sound) of every effect."""
    cat = (folder / "usr/share/games/openttd/baseset/opensfx/opensfx.cat").read_bytes()
    for i in range((struct.unpack_from("<I", cat)[0] & 0x7FFFFFFF) // 8):  # OpenTTD's container: offsets, then name and WAV of each
        at, size = struct.unpack_from("<II", cat, 8 * i)
        at &= 0x7FFFFFFF
        credit = cat[at + 1 : at + cat[at]].decode()
        if size > 1000:
            # ShareAlike sounds stay out of the committed clips.
            # One recording may be in several of them ("Wind", "Heavy wind"): by the recording, then.
            original = re.search(r'Orig\w* "([^"]+)"', credit)
            split = "train" if "ShareAlike" in credit else part(original[1] if original else credit)
            yield credit.split('"')[1], "OpenSFX: " + credit, split, decode(io.BytesIO(cat[at + 1 + cat[at] : at + 1 + cat[at] + size]))
    for f in sorted((folder / "usr/share/sonic-pi/samples").rglob("*.flac")):
        yield f.stem, f"Sonic Pi sample {f.stem}, CC0", part(f.stem), decode(str(f))
    with zipfile.ZipFile(folder / "usr/share/games/ufoai/base/0snd.pk3") as pack:
        for name in sorted(pack.namelist()):
            if name.endswith((".ogg", ".wav")) and any(d in name for d in ("/ambience/", "/ugv/", "/footsteps/", "/misc/", "/doors/", "/weapons/")):
                yield name, "", "train", decode(io.BytesIO(pack.read(name)))


def noises(folder: Path) -> dict[str, list]:
    """split -> [(name, credit, sound)]: at least 0.4 s, at most 5 s of each, all at one level."""
    found = {"train": [], "validation": [], "test": []}
    for name, credit, split, sound in sounds(folder):
        sound = sound[: 5 * RATE]
        loud = np.sqrt((sound**2).mean()) if len(sound) else 0.0
        if len(sound) > 0.4 * RATE and loud > 1e-3:
            found[split].append((name, credit, sound * (0.06 / loud)))
    return found


def room(rng: np.random.Generator, longest: float = 0.5) -> np.ndarray:
    """(longest·RATE,) the response of a shoebox room, RT60 of 0.2 to 0.5 s, from its direct sound (1) on."""
    while True:
        size, rt60 = rng.uniform([3, 3, 2.4], [8, 6, 3.5]), rng.uniform(0.2, 0.5)
        try:
            absorption, order = pyroomacoustics.inverse_sabine(rt60, size)
        except ValueError:  # too large a room for so short a reverberation
            continue
        mic = rng.uniform(0.6, size - 0.6)
        way = rng.normal(size=3) * [1, 1, 0.3]
        # 0.3 to 1 m, a whole number of samples away, so that the direct sound is one sample and not a spread.
        source = mic + way / np.linalg.norm(way) * rng.integers(14, 45) * pyroomacoustics.constants.get("c") / RATE
        if not ((source > 0.3) & (source < size - 0.3)).all():
            continue
        shoebox = pyroomacoustics.ShoeBox(size, fs=RATE, materials=pyroomacoustics.Material(absorption), max_order=min(order, 24))
        shoebox.add_source(source), shoebox.add_microphone(mic)
        shoebox.compute_rir()
        response = shoebox.rir[0][0]
        peak = int(np.abs(response).argmax())
        response = response[peak : peak + int(longest * RATE)] / response[peak]
        if np.abs(response).max() < 3.9:
            return np.pad(response, (0, int(longest * RATE) - len(response))).astype(np.float32)


def clips(speech: np.ndarray, babblers: np.ndarray, noise: list, rooms: np.ndarray) -> None:
    """CLIPS of 3 s, noisy and clean: recorded sounds, repeated where short, every fourth babble of other readers' voices; every third in a room."""
    noise = [sound for sound in noise if sound[1].startswith("OpenSFX") and len(sound[2]) > RATE]  # of the world, not of music
    listing, g, length = [], torch.Generator().manual_seed(0), 3 * RATE
    energy = np.convolve(speech**2, np.ones(length), "valid")[::4000]
    starts = (np.flatnonzero(energy > np.quantile(energy, 0.4)) * 4000)[:: max(1, int((energy > np.quantile(energy, 0.4)).sum()) // CLIPS)][:CLIPS]
    for i, start in enumerate(starts):
        name, credit, sound = noise[i % len(noise)]
        if i % 4 == 3:
            name, credit, sound = "Babble", "six voices of the training readers", cut(torch.from_numpy(babblers), 6, length + 1, g).sum(0).numpy()
        repeated = np.tile(sound, length // len(sound) + 2)
        stretch = torch.from_numpy(speech[start : start + length + 1].copy())
        level = (0.0, 2.5, 5.0, 7.5, 10.0, 12.0)[i % 6]
        noisy, clean = mix(stretch, torch.from_numpy(repeated[: length + 1].copy()), torch.from_numpy(rooms[i : i + 1]), 1, length, g,
                           snr=(level, level), reverberant=float(i % 3 == 2), shares=(1.0, 0.0, 0.0, 0.0))  # fmt: skip
        for kind, data in (("noisy", noisy), ("clean", clean)):
            soundfile.write(HERE / f"{i:02d}-{kind}.flac", data[0].numpy() * 0.95, RATE, subtype="PCM_16")
        listing.append({"noise": name, "credit": credit, "snr": level, "room": i % 3 == 2})
    (HERE / "clips.json").write_text(json.dumps(listing, indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    said, unwanted, rng = speech(folder), noises(folder), np.random.default_rng(0)
    rooms = {split: np.stack([room(rng) for _ in range(n)]) for split, n in ROOMS.items()}
    HERE.mkdir(parents=True, exist_ok=True), out.parent.mkdir(parents=True, exist_ok=True)
    streams = {split: np.concatenate([sound for *_, sound in found]) for split, found in unwanted.items()}
    for split in said:
        print(split, f"{len(said[split]) / RATE / 60:.1f} min of speech, {len(streams[split]) / RATE / 60:.1f} of {len(unwanted[split])} noises")
    clips(said.pop("test"), said["validation"], unwanted["test"], rooms.pop("test"))
    streams.pop("test")
    write(out, said, streams, rooms)
    print(f"{out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
