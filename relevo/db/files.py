"""Files that survive a kill: locks that let go by themselves, secrets, and folders never half there."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold ``path`` exclusively, waiting for it; a killed process lets go by itself."""
    with open(open_private(path), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough while a fork holds a copy


def open_private(path: Path, owner: Path | None = None) -> int:
    """A descriptor of ``path``, made 0600 if new, of the same owner as ``owner`` (default: its folder).

    The owner matters when root works in the RELEVO_HOME of somebody else, who must not be locked out.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    if os.geteuid() == 0:
        like = (owner or path.parent).stat()
        os.fchown(descriptor, like.st_uid, like.st_gid)
    return descriptor


def write_private(path: Path, text: str, owner: Path | None = None) -> None:
    """Write so that a power cut leaves the old text or the new."""
    draft = path.with_name(f"{path.name}.draft")
    with open(open_private(draft, owner), "w") as file:
        file.truncate()
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


@contextmanager
def draft_of(target: Path) -> Iterator[Path]:
    """A folder that becomes ``target`` only if the block ends well: a killed process leaves no half of it."""
    for leftover in target.parent.glob(f"{target.name}.draft-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{target.name}.draft-", dir=target.parent))
    try:
        yield draft
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
