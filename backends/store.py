"""What is kept of runs: a row each in SQLite and two files beside it, in one folder under a limit, the oldest going first. Votes are rows alone, and stay.

    UNNOISE_DATA     the folder; without it $XDG_DATA_HOME/unnoise or ~/.local/share/unnoise, and where that can't be written the temporary folder
    UNNOISE_DATA_MB  how much all visitors' runs may take together, 1000 by default

Not the cache folder, which people and systems empty: what was made here can't be fetched again. A folder belongs to one machine, on which several
studios may share it. An owner is the digest of a visitor's token, so that the file tells nobody's token. A session's, which ends and to which nobody comes
back, begins with SESSION: what it leaves goes after SESSION_SECONDS, or when the server that held the session is gone, unless a link was shared.
"""

import errno
import json
import logging
import os
import re
import shutil
import sqlite3
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from backends import votes
from backends.packing import pack, unpack
from backends.votes import Ballot

MB = 2**20
LIMIT_MB = 1000
ENDED = ("done", "stopped", "failed", "interrupted")
SESSION = "session-"
SESSION_SECONDS = 86400.0  # from a run's end
TIMES = 64  # measured times that are kept of one kind of arm
SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, owner TEXT, given TEXT, words TEXT, state TEXT, error TEXT DEFAULT '', at REAL, began REAL DEFAULT 0,
  ended REAL DEFAULT 0, shared INTEGER DEFAULT 0, size INTEGER DEFAULT 0, shown TEXT DEFAULT '', server TEXT);
CREATE INDEX IF NOT EXISTS owners ON runs (owner, at);
CREATE TABLE IF NOT EXISTS times (kind TEXT, features TEXT, seconds REAL, at REAL);
CREATE INDEX IF NOT EXISTS kinds ON times (kind, at);
CREATE TABLE IF NOT EXISTS votes (run TEXT PRIMARY KEY, owner TEXT, task TEXT, model TEXT, seed INTEGER, prompt TEXT, arms TEXT, places TEXT, state TEXT,
  best INTEGER, rivals TEXT, at REAL);
CREATE INDEX IF NOT EXISTS voters ON votes (owner, task, at);
"""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """A run's row. `at`, `began`, `ended`: seconds since 1970, 0 when it never did; `size`: bytes of its files; `shown`: what the page remembers of it."""

    id: str
    owner: str
    given: dict
    state: str  # queued, running, or one of ENDED
    error: str
    at: float
    began: float
    ended: float
    shared: bool
    size: int
    shown: str


def default_folder() -> Path:
    """UNNOISE_DATA, else the first folder of the user's that can be written."""
    if named := os.environ.get("UNNOISE_DATA"):
        return Path(named).expanduser()
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "unnoise"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if os.access(home, os.W_OK):
            return home
    except OSError:
        pass
    return Path(tempfile.gettempdir()) / f"unnoise-{os.getuid()}"


def _this_server() -> str:
    return f"{os.getpid()}@{psutil.Process().create_time():.2f}"


def _lives(server: str) -> bool:
    """Whether the process that wrote a row still runs."""
    pid, _, began = server.partition("@")
    try:
        process = psutil.Process(int(pid))
        return f"{process.create_time():.2f}" == began and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError):
        return False


class Store:
    """Safe to use from several threads. `limit`: bytes."""

    def __init__(self, folder: Path | None = None, limit: int | None = None):
        self.folder = folder or default_folder()
        self.limit = int(float(os.environ.get("UNNOISE_DATA_MB") or LIMIT_MB) * MB) if limit is None else limit
        self._files = self.folder / "runs"
        self._files.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self._lock, self._server = threading.RLock(), _this_server()
        self._db = sqlite3.connect(self.folder / "runs.sqlite", timeout=20, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._do("PRAGMA journal_mode=WAL")
        self._do("PRAGMA synchronous=NORMAL")
        self._db.executescript(SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _do(self, query: str, *values) -> list[sqlite3.Row]:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                if "full" in str(error) or "I/O" in str(error):
                    raise OSError(errno.ENOSPC, str(error)) from error
                raise

    # --- a run's life ---

    def begin(self, name: str, owner: str, given: dict, pictures: dict, words: str, at: float) -> None:
        """All or nothing. `words`: what a search finds it by."""
        self._do("INSERT INTO runs (id, owner, given, words, state, at, server) VALUES (?, ?, ?, ?, 'queued', ?, ?)",
                 name, owner, json.dumps(given), words.lower(), at, self._server)  # fmt: skip
        try:
            self._write(name, "inputs", pictures)
        except OSError:
            self.drop(name)
            raise

    def save(self, name: str, events: list) -> None:
        self._write(name, "events", events)

    def change(self, name: str, **values) -> None:
        """Set columns of Kept."""
        columns = ", ".join(f"{column} = ?" for column in values)
        self._do(f"UPDATE runs SET {columns} WHERE id = ?", *values.values(), name)

    def add_words(self, name: str, words: str) -> None:
        self._do("UPDATE runs SET words = words || ' ' || ? WHERE id = ?", words.lower(), name)

    def lost(self) -> list[Kept]:
        """Those queued by a server that is gone, now this one's; what it was running is marked as interrupted."""
        with self._lock:
            for row in self._do("SELECT id, server FROM runs WHERE owner GLOB ? AND NOT shared", SESSION + "*"):
                if not _lives(row["server"]):
                    self._remove(row["id"])
            left = [r for r in self._do("SELECT * FROM runs WHERE state IN ('queued', 'running') ORDER BY at") if not _lives(r["server"])]
            for row in left:
                if row["state"] == "running":
                    self.change(row["id"], state="interrupted", ended=time.time())
                else:
                    self.change(row["id"], server=self._server)
            names = {row["id"] for row in self._do("SELECT id FROM runs")}
            for folder in self._files.iterdir():  # a server that died between a row and its files
                if folder.name not in names and time.time() - folder.stat().st_mtime > 3600:
                    shutil.rmtree(folder, ignore_errors=True)
        return [_kept(r) for r in left if r["state"] == "queued"]

    # --- reading ---

    def get(self, name: str, owner: str, shared: bool = False) -> Kept | None:
        """The owner's run; with `shared`, also another's that is."""
        rows = self._do("SELECT * FROM runs WHERE id = ? AND (owner = ? OR (? AND shared))", name, owner, shared)
        return _kept(rows[0]) if rows else None

    def inputs(self, name: str) -> dict:
        return self._read(name, "inputs") or {}

    def events(self, name: str) -> list:
        return self._read(name, "events") or []

    def ended(self, owner: str, query: str = "", most: int = 50) -> tuple[list[Kept], int]:
        """The owner's ended runs in which every word of the query stands, the newest first, `most` of them; and how many there are."""
        words = re.findall(r"\S+", query.lower()[:200])
        where = "owner = ? AND state NOT IN ('queued', 'running')" + " AND instr(words, ?)" * len(words)
        (count,) = self._do(f"SELECT count(*) AS n FROM runs WHERE {where}", owner, *words)
        return [_kept(r) for r in self._do(f"SELECT * FROM runs WHERE {where} ORDER BY at DESC LIMIT ?", owner, *words, most)], count["n"]

    def used(self, owner: str = "") -> int:
        """Bytes of the files of the owner's runs; of all when none is named."""
        return self._do("SELECT coalesce(sum(size), 0) AS n FROM runs WHERE ? IN ('', owner)", owner)[0]["n"]

    # --- letting go ---

    def delete(self, name: str, owner: str) -> bool:
        """Whether it was the owner's and had ended. Its vote goes too."""
        with self._lock:
            found = self.get(name, owner)
            if found is None or found.state not in ENDED:
                return False
            self.drop(name)
        return True

    def clean(self) -> None:
        """Let go of what sessions left long ago, then of the oldest ended runs until the rest fits the limit; the newest stays in any case."""
        with self._lock:
            query = "SELECT id FROM runs WHERE owner GLOB ? AND NOT shared AND ended BETWEEN 1 AND ?"  # 0: not ended
            for row in self._do(query, SESSION + "*", time.time() - SESSION_SECONDS):
                self._remove(row["id"])
            left = self.used()
            *old, _ = self._do("SELECT id, size, state FROM runs ORDER BY at") or [None]
            for row in old:
                if left <= self.limit:
                    break
                if row["state"] in ENDED:
                    self._remove(row["id"])
                    left -= row["size"]

    def drop(self, name: str) -> None:
        """A run as if it had not been asked for."""
        with self._lock:
            self._do("DELETE FROM votes WHERE run = ?", name)
            self._remove(name)

    def _remove(self, name: str) -> None:
        self._do("DELETE FROM runs WHERE id = ?", name)
        self._do("DELETE FROM votes WHERE run = ? AND (state <> ? OR owner GLOB ?)", name, votes.VOTED, SESSION + "*")
        shutil.rmtree(self._files / name, ignore_errors=True)

    # --- blind votes ---

    def ask(self, ballot: Ballot) -> None:
        """Keep a ballot that is open."""
        row = {name: json.dumps(value) if isinstance(value, list) else value for name, value in asdict(ballot).items()}
        self._do(f"INSERT INTO votes ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", *row.values())

    def ballot(self, run: str) -> Ballot | None:
        """That of a run which was asked for without names, voted on or not."""
        rows = self._do("SELECT * FROM votes WHERE run = ?", run)
        return _ballot(rows[0]) if rows else None

    def vote(self, run: str, owner: str, best: int | None, rivals: list[int]) -> bool:
        """Close the owner's ballot with a choice among the arms `rivals`, or, where there are none, without one. False when it was closed before."""
        state = votes.VOTED if rivals else votes.SHOWN
        query = "UPDATE votes SET state = ?, best = ?, rivals = ?, at = ? WHERE run = ? AND owner = ? AND state = ? RETURNING run"
        return bool(self._do(query, state, best, json.dumps(rivals), time.time(), run, owner, votes.OPEN))

    def votes(self, owner: str, task: str) -> list[Ballot]:
        """The owner's votes on a task, the oldest first."""
        return [_ballot(r) for r in self._do("SELECT * FROM votes WHERE owner = ? AND task = ? AND state = ? ORDER BY at", owner, task, votes.VOTED)]

    def forget(self, owner: str, task: str) -> None:
        """Delete the owner's votes on a task; the runs stay, with their names shown."""
        self._do("UPDATE votes SET state = ?, best = NULL, rivals = '[]' WHERE owner = ? AND task = ? AND state = ?", votes.SHOWN, owner, task, votes.VOTED)

    # --- how long arms took ---

    def learn(self, kind: str, features: dict, seconds: float) -> None:
        with self._lock:
            self._do("INSERT INTO times VALUES (?, ?, ?, ?)", kind, json.dumps(features), seconds, time.time())
            self._do("DELETE FROM times WHERE kind = ? AND rowid NOT IN (SELECT rowid FROM times WHERE kind = ? ORDER BY at DESC LIMIT ?)", kind, kind, TIMES)

    def learned(self, kind: str) -> list[tuple[dict, float]]:
        """(features, seconds) of each, the newest first."""
        return [(json.loads(r["features"]), r["seconds"]) for r in self._do("SELECT * FROM times WHERE kind = ? ORDER BY at DESC", kind)]

    # --- files: their names are this module's own ---

    def _write(self, name: str, what: str, value) -> None:
        """All or nothing: a server that dies meanwhile leaves the file as it was."""
        folder = self._files / name
        folder.mkdir(exist_ok=True)
        (folder / "new").write_bytes(pack(value))
        (folder / "new").replace(folder / what)
        self.change(name, size=sum(f.stat().st_size for f in folder.iterdir()))

    def _read(self, name: str, what: str):
        path = self._files / name / what
        try:
            return unpack(path.read_bytes()) if path.is_file() else None
        except Exception:  # a file cut short by a full disk, or of a version with other types
            log.exception("what was kept of run %s can't be read", name)
            return None


def _kept(row: sqlite3.Row) -> Kept:
    values = {name: row[name] for name in Kept.__dataclass_fields__}
    return Kept(**values | {"given": json.loads(row["given"]), "shared": bool(row["shared"])})


def _ballot(row: sqlite3.Row) -> Ballot:
    values = {name: row[name] for name in Ballot.__dataclass_fields__}
    return Ballot(**values | {name: json.loads(row[name]) for name in ("arms", "places", "rivals")})
