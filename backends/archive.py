"""Zips that the host names or a visitor brings, unpacked once by their content, whatever they hold."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from backends.spec import BadInput

ENTRIES = 5000
DIRECTORY = 2**22  # most bytes of a zip's list of files: zipfile makes objects of all of it before they can be counted
BYTES = 4 * 2**30  # of all that is unpacked
RATIO, SMALL = 200, 2**20  # most bytes out of one in; files up to SMALL are let be, lists of words shrink well
BLOCK = 2**20
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)  # how zipfile tells of a zip it can't read


class _Careful(io.BufferedReader):
    """A zip that is read in pieces, of which the list of files, taken at once, is the largest."""

    def read(self, size: int | None = -1) -> bytes:
        if (size or 0) > DIRECTORY:
            raise OverflowError
        return super().read(size)


def cache() -> Path:
    """The user's cache folder of the studio, made when it is not there."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unnoise" / "unpacked"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def digest(*files: Path) -> str:
    """SHA-256 of the files' bytes one after another, as hex digits."""
    found = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                found.update(block)
    return found.hexdigest()


def unpacked(path: Path, keep: tuple[str, ...], what: str, into: Path | None = None, most: int = BYTES) -> Path:
    """The folder with those files of the zip whose names end in one of `keep` (lower case), in the cache or `into`; raises BadInput.

    `most`: bytes of all that is unpacked.

    Nothing is taken from a zip with a name that leads out of it, a link, a cipher, two files of one name, or more than the limits above.
    """
    try:
        home = (into or cache()) / digest(path)
        if not home.is_dir():
            _unpack(path, home, keep, what, most)
        return home
    except BadInput:
        raise
    except OverflowError:
        raise BadInput(f"{what} holds too long a list of files; at most {ENTRIES:,} are taken.") from None
    except BROKEN:
        raise BadInput(f"{what} is no whole zip file; fetch it again.") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise BadInput(f"The disk is full; {what} could not be unpacked.") from None
        raise BadInput(f"{what} could not be unpacked ({type(error).__name__}); the host should see to the file and the cache folder.") from None


def _unpack(path: Path, home: Path, keep: tuple[str, ...], what: str, most: int) -> None:
    with _Careful(io.FileIO(path)) as read, zipfile.ZipFile(read) as file, tempfile.TemporaryDirectory(dir=home.parent) as made:
        folder, left = Path(made) / "whole", min(most, 64 * SMALL + RATIO * path.stat().st_size)
        folder.mkdir()
        for entry in _checked(file, keep, what):
            target = folder.joinpath(*PurePosixPath(entry.filename).parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            left -= _copied(file, entry, target, min(left, max(SMALL, RATIO * entry.compress_size)), most, what)
        try:
            folder.rename(home)
        except OSError:
            if not home.is_dir():  # else another process was faster
                raise


def _checked(file: zipfile.ZipFile, keep: tuple[str, ...], what: str) -> list[zipfile.ZipInfo]:
    """The zip's files to keep, or BadInput where one of its files is not to be trusted."""
    entries = file.infolist()
    if len(entries) > ENTRIES:
        raise BadInput(f"{what} holds {len(entries):,} files; at most {ENTRIES:,} are taken.")
    seen: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        name, wanted = entry.filename, not entry.is_dir() and entry.filename.lower().endswith(keep)
        parts = re.split(r"[/\\]", name)
        if not parts[0] or ".." in parts or "\0" in entry.orig_filename or (wanted and re.search(r"[:\\]", name)):
            raise BadInput(f"{what} holds a file whose name leads out of it ({name[:40]!r}); it is not unpacked.")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind and not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise BadInput(f"{what} holds a link ({name[:40]!r}); it is not unpacked.")
        if entry.flag_bits & 1:
            raise BadInput(f"{what} is locked with a password; give an open one.")
        key = str(PurePosixPath(name)).lower()  # folders of some systems know no case
        if wanted and key in seen:
            raise BadInput(f"{what} holds two files of one name ({name[:40]!r}); it is not unpacked.")
        if wanted:
            seen[key] = entry
    return list(seen.values())


def _copied(file: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, left: int, most: int, what: str) -> int:
    """Write one file and give its size, counted as it comes: what the zip says of it may be a lie."""
    done = 0
    with file.open(entry) as source, target.open("xb") as out:
        while block := source.read(BLOCK):
            done += len(block)
            if done > left:
                raise BadInput(f"{what} unpacks to more than is allowed ({most >> 20:,} MB in all, {RATIO} times its size a file); it is not unpacked.")
            out.write(block)
    return done
