"""The embedded PostgreSQL of one RELEVO_HOME, shared by every command that runs there.

The first command starts the server and the last one stops it, unless it is kept. Nobody stops a server
that others use. Every user holds a lock on a file of its own, which the kernel releases however the user
ends, so a killed command never counts as one. ``lock`` lets one command at a time start or stop the server.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from relevo.db.cluster import Address, Cluster
from relevo.db.files import locked, open_private
from relevo.errors import EmbeddedServerFailed, Refused

__all__ = ["Address", "EmbeddedServer", "Lease"]


class EmbeddedServer:
    """The server of ``home`` (RELEVO_HOME), which is made, for its owner alone, when first needed.

    All methods block; starting a server takes a fraction of a second, initialising one about two.
    They raise EmbeddedServerFailed when PostgreSQL or a folder is the cause.
    """

    def __init__(self, home: Path) -> None:
        self.home = home.absolute().resolve()
        self._kept = self.home / "keep"
        with _faults_named():
            self._cluster = Cluster(self.home)

    def acquire(self) -> Lease:
        """A lease on the running server, started if needed."""
        with self._alone():
            user = _User(self.home)
            try:
                return Lease(self, user, self._cluster.ensure_running())
            except BaseException:
                self._part(user)
                raise

    def keep(self) -> Address:
        """Where the server runs, started if needed; it now stays up until ``stop``."""
        with self._alone():
            address = self._cluster.ensure_running()
            self._kept.touch(mode=0o600)
            return address

    def stop(self) -> bool:
        """Stop the server, kept or not; False if it was not running. Raises Refused while commands use it."""
        with self._alone():
            self._refuse_if_used()
            self._kept.unlink(missing_ok=True)
            return self._cluster.stop()

    def running(self) -> bool:
        """Whether the server lets us in right now."""
        with _faults_named():
            return self._cluster.answers()

    def destroy(self) -> None:
        """Stop the server and remove its data for good. Raises Refused while commands use it."""
        with self._alone():
            self._refuse_if_used()
            self._kept.unlink(missing_ok=True)
            self._cluster.stop()
            self._cluster.remove()

    def _end_use(self, user: _User) -> None:
        """End one use; the last one stops the server unless it is kept."""
        if user.pid == os.getpid():  # a forked child inherits the lease, not the right to end it
            with self._alone():
                self._part(user)

    def _part(self, user: _User) -> None:
        user.leave()
        if not self._kept.exists() and not _present(self.home):
            self._cluster.stop()

    def _refuse_if_used(self) -> None:
        if pids := _present(self.home):
            named = ", ".join(str(pid) for pid in pids)
            raise Refused(
                f"the embedded PostgreSQL is in use by {len(pids)} command{'s' if len(pids) > 1 else ''}",
                fix=f"let process {named} finish or end it, then stop the server",
            )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the right to start and stop, waiting for it."""
        with _faults_named():
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(self.home / "lock"):
                yield


class Lease:
    """The right to use the server at ``address``, until it is released.

    One that was forgotten, say because its task was cancelled, ends with the process at the latest.
    """

    def __init__(self, server: EmbeddedServer, user: _User, address: Address) -> None:
        self.address = address
        self._release = weakref.finalize(self, server._end_use, user)

    def release(self) -> None:
        """Give it back; the last one stops the server unless it is kept. A second call does nothing."""
        self._release()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class _User:
    """This process as a user: a locked file in RELEVO_HOME, named by the process id."""

    def __init__(self, home: Path) -> None:
        self.pid = os.getpid()
        self._path = home / f"user-{self.pid}-{secrets.token_hex(4)}"
        self._descriptor = open_private(self._path)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def leave(self) -> None:
        self._path.unlink(missing_ok=True)
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)


def _present(home: Path) -> list[int]:
    """The process ids of the users there are; what killed ones left behind is swept away."""
    return sorted({int(path.name.split("-")[1]) for path in home.glob("user-*") if not _swept(path)})


def _swept(path: Path) -> bool:
    descriptor = open_private(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


@contextmanager
def _faults_named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EmbeddedServerFailed(
            f"the embedded PostgreSQL cannot use its files: {error}",
            fix="make the file or folder usable, or set RELEVO_HOME to a folder of your own",
        ) from error
