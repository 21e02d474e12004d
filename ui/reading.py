"""What a file that was uploaded holds, for the fields that take one."""

import uuid
from collections.abc import Callable
from pathlib import Path

from backends.spec import BadInput
from ui import toast

EVENT = dict(concurrency_limit=None, show_progress="hidden", api_visibility="private")  # queued: a warning needs the queue


def anew() -> dict:
    """What makes a component of a drawing another one than that of the drawing before, for the page keeps the old value where the new one is None."""
    return dict(key=uuid.uuid4().hex, preserved_by_key=[])


def read(decode: Callable, path: Path, what: str, kind: str):
    """What `decode` makes of it; None when it can't be taken, which a warning then says."""
    try:
        return decode(path, what)
    except BadInput as bad:
        toast.warning(bad, title=f"{kind} not taken")
        return None
