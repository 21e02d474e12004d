"""A voicebank small enough for tests, with the inputs, outputs and files of a real one. Its mel tells what it was given, bin by bin."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
TensorProto, helper = onnx.TensorProto, onnx.helper

BINS, HOP, RATE = 8, 512, 44100
HELD = ("SP", "AP", "a", "i", "u", "e", "o", "N", "k", "ky", "g", "s", "sh", "z", "j", "t", "ch", "ts", "d", "n", "h", "f", "b", "p", "m", "y", "r", "w")
VARIANCES = ("energy", "breathiness", "voicing", "tension")


def acoustic(path: Path, extra=("gender", "velocity"), legacy=False, shallow=True, speaker=False, bins=BINS) -> None:
    """Bins of the mel: f0 / 1000, depth, steps or speedup, the phoneme's id (by the durations), noise; the rest sums the `extra` inputs."""
    nodes, F, I = [], TensorProto.FLOAT, TensorProto.INT64
    inputs = [("tokens", I, [1, "n"]), ("durations", I, [1, "n"]), ("f0", F, [1, "t"]), *((name, F, [1, "t"]) for name in extra)]
    inputs += [("spk_embed", F, [1, "t", 4])] if speaker else []
    inputs += [("depth", I if legacy else F, [1] if legacy else [])] if shallow else []
    inputs += [("speedup" if legacy else "steps", I, [1] if legacy else [])]

    def add(kind, takes, gives, **more):
        nodes.append(helper.make_node(kind, takes, [gives], **more))
        return gives

    constants = [helper.make_tensor(name, kind, shape, values) for name, kind, shape, values in (
        ("k", F, [], [1000.0]), ("zero", I, [1], [0]), ("one", I, [1], [1]), ("two", I, [1], [2]))]  # fmt: skip
    add("Div", ["f0", "k"], "pitch")
    add("Mul", ["f0", "k"], "large")
    add("Sub", ["large", "large"], "none")  # (1, t) of zeros
    columns = ["pitch"]
    for name in ("depth", "speedup" if legacy else "steps"):
        if name == "depth" and not shallow:
            columns.append("none")
            continue
        add("Cast", [name], f"{name}_f", to=F)
        columns.append(add("Add", ["none", f"{name}_f"], f"{name}_row"))
    # the phoneme of each frame: the ends that lie at or before it are counted
    add("Squeeze", ["zero"], "start")
    add("Squeeze", ["one"], "stride")
    add("Shape", ["f0"], "shape")
    add("Gather", ["shape", "stride"], "length")
    add("Range", ["start", "length", "stride"], "frames")
    add("CumSum", ["durations", "one"], "ends")
    add("Unsqueeze", ["frames", "one"], "frames_col")
    add("GreaterOrEqual", ["frames_col", "ends"], "past")
    add("Cast", ["past"], "past_i", to=I)
    add("ReduceSum", ["past_i", "one"], "which", keepdims=0)
    add("Squeeze", ["tokens", "zero"], "ids")
    add("Gather", ["ids", "which"], "phones")
    add("Cast", ["phones"], "phones_f", to=F)
    columns.append(add("Unsqueeze", ["phones_f", "zero"], "phones_row"))
    columns.append(add("RandomNormalLike", ["f0"], "noise"))
    columns += list(extra)
    if speaker:
        columns.append(add("ReduceSum", ["spk_embed", "two"], "speaker_row", keepdims=0))
    columns += ["none"] * (bins - len(columns))
    rows = [add("Unsqueeze", [name, "two"], f"bin{i}") for i, name in enumerate(columns)]
    add("Concat", rows, "mel", axis=2)
    save(path, nodes, inputs, [("mel", F, [1, "t", bins])], constants)


def vocoder(path: Path, bins=BINS) -> None:
    """A held step a frame, a hundredth of the mel's mean; f0 is added to nothing."""
    F, I = TensorProto.FLOAT, TensorProto.INT64
    nodes = [
        helper.make_node("ReduceMean", ["mel"], ["mean"], axes=[2], keepdims=1),
        helper.make_node("Mul", ["mean", "tenth"], ["quiet"]),
        helper.make_node("Sub", ["f0", "f0"], ["none"]),
        helper.make_node("Unsqueeze", ["none", "two"], ["none_col"]),
        helper.make_node("Add", ["quiet", "none_col"], ["summed"]),
        helper.make_node("Expand", ["summed", "hops"], ["spread"]),
        helper.make_node("Reshape", ["spread", "flat"], ["waveform"]),
    ]
    constants = [helper.make_tensor("tenth", F, [], [0.01]), helper.make_tensor("two", I, [1], [2]),
                 helper.make_tensor("hops", I, [3], [1, 1, HOP]), helper.make_tensor("flat", I, [2], [1, -1])]  # fmt: skip
    save(path, nodes, [("mel", F, [1, "t", bins]), ("f0", F, [1, "t"])], [("waveform", F, [1, "s"])], constants)


def predictors(folder: Path, phonemes=HELD, words=True, **config) -> None:
    """Durations as long as phonemes' ids; breathiness of a hundred below the pitch, tension as much as steps, energy above 0. `words`: the encoder counts words."""
    F, I, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
    folder.mkdir()
    counted = ["word_div", "word_dur"] if words else ["ph_dur"]
    nodes = [
        helper.make_node("Cast", ["tokens"], ["ids"], to=F),
        helper.make_node("Unsqueeze", ["ids", "two"], ["encoder_out"]),
        helper.make_node("Equal", ["tokens", "none"], ["x_masks"]),
        *(helper.make_node("Identity", [name], [f"{name}_seen"]) for name in counted),
    ]
    outputs = [("encoder_out", F, [1, "n", 1]), ("x_masks", B, [1, "n"]), *((f"{name}_seen", I, [1, "w"]) for name in counted)]
    constants = [helper.make_tensor("two", I, [1], [2]), helper.make_tensor("none", I, [1], [0])]
    save(folder / "linguistic.onnx", nodes, [("tokens", I, [1, "n"]), *((name, I, [1, "w"]) for name in counted)], outputs, constants)

    encoded, two = ("encoder_out", F, [1, "n", 1]), [helper.make_tensor("two", I, [1], [2])]
    nodes = [helper.make_node("Squeeze", ["encoder_out", "two"], ["ids"]), helper.make_node("Cast", ["ph_midi"], ["midi"], to=F),
             helper.make_node("Sub", ["midi", "midi"], ["zero"]), helper.make_node("Add", ["ids", "zero"], ["ph_dur_pred"])]  # fmt: skip
    save(folder / "dur.onnx", nodes, [encoded, ("x_masks", B, [1, "n"]), ("ph_midi", I, [1, "n"])], [("ph_dur_pred", F, [1, "n"])], two)

    names = ("energy", "breathiness", "tension")
    nodes = [helper.make_node("Sub", ["pitch", "hundred"], ["breathiness_pred"]), helper.make_node("Cast", ["steps"], ["steps_f"], to=F),
             helper.make_node("Sub", ["pitch", "pitch"], ["none"]), helper.make_node("Add", ["none", "steps_f"], ["tension_pred"]),
             helper.make_node("Abs", ["pitch"], ["energy_pred"])]  # fmt: skip
    inputs = [encoded, ("ph_dur", I, [1, "n"]), ("pitch", F, [1, "t"]), *((name, F, [1, "t"]) for name in names), ("retake", B, [1, "t", 3]), ("steps", I, [])]
    outputs = [(f"{name}_pred", F, [1, "t"]) for name in names]
    save(folder / "variance.onnx", nodes, inputs, outputs, [helper.make_tensor("hundred", F, [], [100.0])])
    (folder / "phonemes.json").write_text(json.dumps({p: i for i, p in enumerate(phonemes, 1)}))
    said = dict(phonemes="phonemes.json", linguistic="linguistic.onnx", dur="dur.onnx", variance="variance.onnx", sample_rate=RATE, hop_size=HOP) | config
    (folder / "dsconfig.yaml").write_text(yaml.safe_dump(said))


def save(path, nodes, inputs, outputs, constants) -> None:
    made = [[helper.make_tensor_value_info(*what) for what in side] for side in (inputs, outputs)]
    graph = helper.make_graph(nodes, "tiny", *made, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def endless(path: Path) -> Path:
    """A network whose only step never ends."""
    F, I, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["held", "held"], ["next"])]
    body = helper.make_graph(nodes, "body", [value("i", I, []), value("go", B, []), value("held", F, [1])], [value("on", B, []), value("next", F, [1])])
    constants = [helper.make_tensor("trips", I, [], [2**62]), helper.make_tensor("yes", B, [], [True])]
    save(path, [helper.make_node("Loop", ["trips", "yes", "x"], ["y"], body=body)], [("x", F, [1])], [("y", F, [1])], constants)
    return path


def elsewhere(path: Path, where: str) -> None:
    """Let the network's first number stand in another file."""
    graph = onnx.load(path)
    weight = next(i for i in graph.graph.initializer if i.name == "k")
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", where), ("offset", "0"), ("length", "4")):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    path.write_bytes(graph.SerializeToString())


def bank(folder: Path, phonemes=HELD, as_json=True, vocoder_base="e", config=(), **graph) -> Path:
    """A bank's folder; `config`: what dsconfig.yaml says otherwise, None for what it leaves out."""
    (folder / "dsvocoder").mkdir(parents=True)
    acoustic(folder / "acoustic.onnx", **graph)
    vocoder(folder / "dsvocoder" / "nsf.onnx")
    names = "phonemes.json" if as_json else "phonemes.txt"
    (folder / names).write_text(json.dumps({p: i for i, p in enumerate(phonemes, 1)}) if as_json else "\n".join(["<PAD>", *phonemes]) + "\n")
    mel = dict(sample_rate=RATE, hop_size=HOP, num_mel_bins=BINS, mel_base="e")
    said = mel | dict(phonemes=names, acoustic="acoustic.onnx", vocoder="nsf", max_depth=600 if graph.get("legacy") else 0.6) | dict(config)
    if graph.get("speaker"):
        said["speakers"] = ["voice.soft", "voice.loud"]
        (folder / "voice.soft.emb").write_bytes(np.arange(4, dtype="<f4").tobytes())
    (folder / "dsconfig.yaml").write_text(yaml.safe_dump({k: v for k, v in said.items() if v is not None}))
    (folder / "dsvocoder" / "vocoder.yaml").write_text(yaml.safe_dump(mel | {"name": "nsf", "model": "nsf.onnx", "mel_base": vocoder_base}))
    (folder / "character.txt").write_text("name=tiny\n")
    return folder


def zipped(folder: Path, path: Path, inside="Tiny Voice/") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for one in sorted(folder.rglob("*")):
            if one.is_file():
                file.write(one, inside + one.relative_to(folder).as_posix())
    return path


def tiny(home: Path, name="Tiny", mute=False, **made) -> Path:
    """The zip of a bank called `name`; `mute`: without its vocoder, which stands beside it as nsf.zip."""
    folder = bank(home / name, **made)
    (folder / "character.txt").write_text(f"name={name}\nimage=x.png\n")
    if mute:
        zipped(folder / "dsvocoder", home / "nsf.zip", "")
        shutil.rmtree(folder / "dsvocoder")
    return zipped(folder, home / f"{name}.zip")
