"""Voicebanks that visitors bring: their zips unpacked into a folder of this process, kept until newer ones need the room or a day is over.

Anyone may have made them. What is unpacked is bounded, read as text and numbers, and run in a process that has little memory and time (onnx_runs).
"""

from __future__ import annotations

import dataclasses
import hashlib
import mmap
import re
import shutil
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path

from backends import archive, inputs, models
from backends.audio import bank_files, voicebank
from backends.cards import VOICEBANK
from backends.spec import BadInput, Brought

ZIPS = 8  # kept at once; the oldest makes room
DAY = 24 * 3600.0  # seconds
UNPACKED = 2  # times the largest zip: networks hardly shrink
GUARD = {"memory": 6 * 2**30, "seconds": 300.0}  # for Process: bytes, and seconds a run
# A tensor whose numbers stand in another file says where under this key; a length that ends in 8, or in 0 where it was written with needless bytes, comes first.
ELSEWHERE = re.compile(rb"[\x08\x00]location")

_kept: OrderedDict[str, tuple[str, threading.Timer]] = OrderedDict()  # digest of a zip -> (its name, what lets it go)
_lock = threading.Lock()
_root: list[tempfile.TemporaryDirectory] = []  # removed when the process ends


def folder(zipped: str) -> Path:
    """Where the zip of that digest is unpacked."""
    if not _root:
        _root.append(tempfile.TemporaryDirectory(prefix="unnoise-brought-", ignore_cleanup_errors=True))
    return Path(_root[0].name) / zipped


def brought(files: list[Path], held: tuple[str, ...]) -> Brought:
    """The card of the bank among the zips, its vocoder taken from another or from one of `held` (digests) where it brings none. Raises BadInput."""
    with _lock:
        before, new = set(_kept), []
        try:
            for file in files:
                new.append(_keep(file))
            waiting = [h for h in held if h in _kept]  # looked for now: the new ones may have taken their room
            banks, vocoders = ([z for z in new if _voices(z) is side] for side in (False, True))
            if len(banks) > 1:
                raise BadInput("These are two voicebanks; bring one at a time.")
            bank, vocoder = ((some or [z for z in waiting if _voices(z) is side] or [""])[-1] for some, side in ((banks, False), (vocoders, True)))
            waits = tuple(filter(None, [vocoder]))
            if not bank:
                return Brought("", waits, f"{_kept[vocoder][0]} is a vocoder; it waits here for its voicebank's zip.")
            try:
                return dataclasses.replace(_taken(bank), held=waits)
            except bank_files.NoVocoder as wants:
                if vocoder:
                    return dataclasses.replace(_taken(bank, vocoder), held=waits)
                return Brought("", (bank,), f"{wants.said}: bring the vocoder's zip too. The voicebank waits here for it.")
        except Exception:  # what nobody foresaw in a bank is refused as well (inputs.brought)
            used = {part for card in models.brought() for part in card.source.split(";")}
            for zipped in new:
                if str(folder(zipped)) not in used and zipped not in before:
                    _let_go(zipped)
            raise


def _voices(zipped: str) -> bool:
    """Whether it is a vocoder and no bank."""
    names = {path.name for path in folder(zipped).rglob("*.yaml")}
    return "vocoder.yaml" in names and "dsconfig.yaml" not in names


def _keep(file: Path) -> str:
    """The digest of a zip, unpacked and its files looked at."""
    home = folder("")
    home.mkdir(exist_ok=True)
    what = inputs.text(file.stem[:40], "The zip's name", 40, False) or "The zip"
    path = archive.unpacked(file, bank_files.KEPT, what, home, UNPACKED * inputs.max_zip())
    for network in path.rglob("*"):  # a bank may call its networks anything
        if network.is_file() and _elsewhere(network):
            shutil.rmtree(path)
            raise BadInput(f"{what}: {network.name[:60]} keeps its numbers in another file, which isn't read; bring a bank whose ONNX files are whole.")
    timer = threading.Timer(DAY, let_go, [path.name])
    timer.daemon = True
    timer.start()
    if path.name in _kept:
        _kept.pop(path.name)[1].cancel()
    _kept[path.name] = what, timer
    while len(_kept) > ZIPS:
        _let_go(next(iter(_kept)))
    return path.name


def _elsewhere(network: Path) -> bool:
    if not network.stat().st_size:
        return False
    with network.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return ELSEWHERE.search(data) is not None


def let_go(zipped: str) -> None:
    """Remove what was unpacked from the zip of that digest, and the cards that sing with it."""
    with _lock:
        _let_go(zipped)


def _let_go(zipped: str) -> None:
    if zipped in _kept:
        _kept.pop(zipped)[1].cancel()
    for card in models.brought():
        if str(folder(zipped)) in card.source.split(";"):
            models.forget(card.name)
    shutil.rmtree(folder(zipped), ignore_errors=True)


def _taken(bank: str, vocoder: str = "") -> Brought:
    """The bank as a card that can be chosen, once its networks were read; raises BadInput."""
    places, title = [folder(z) for z in (bank, vocoder) if z], _called(bank)
    card = dataclasses.replace(
        VOICEBANK, name=f"voicebank-{hashlib.sha256((bank + vocoder).encode()).hexdigest()[:12]}", title=f"Voicebank {title}", source=";".join(map(str, places)),
        revision="", options=GUARD, licence="its maker's own terms, which hold here too", trained_on="its maker's recordings",
        about=f"{VOICEBANK.about} A visitor brought it; only who has its zip or a recipe made with it can name it, for a day at most.",
    )  # fmt: skip
    voicebank.load(card)
    models.bring(card)
    return Brought(card.name, (), f"{title} can sing now, in this page alone and for a day at most. Its maker's terms hold.")


def _called(bank: str) -> str:
    """The bank's name as OpenUtau shows it, else its zip's."""
    for path in sorted(folder(bank).rglob("character.txt"))[:1]:
        said = re.search(r"^\ufeff?name=(.+)$", path.read_bytes()[: bank_files.TEXT].decode(errors="replace"), re.MULTILINE)
        if said and "\ufffd" not in said[1] and (name := "".join(c for c in said[1] if c.isprintable()).strip()[:40]):
            return name
    return _kept[bank][0]
