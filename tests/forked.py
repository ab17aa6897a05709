"""``relevo`` in processes of their own, each forked from one that has everything imported: starting Python takes a
second, which the tests would pay some thousand times.

``python -m tests.forked FD`` is that one process. On its socket it gets the words of a command, its environment and the
files that are to be its standard ones. What it forks runs ``main`` as ``python -m relevo`` does, to the end of the
interpreter. Tests of the start itself, and of what the environment does to it, start Python: see tests/test_cli.py.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
LONGEST_MESSAGE = 1 << 20
REAPED = 4  # bytes of a wait status


class Forked:
    """A running command; what the tests need of ``subprocess.Popen``."""

    def __init__(self, pid: int, ending: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        """How it ended, as ``subprocess`` has it: negative for a signal; None: it has not been seen to end."""
        self._ending = ending

    def poll(self) -> int | None:
        """How it ended; None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """How it ended, once it has. Raises TimeoutExpired after ``timeout`` seconds."""
        status = self._ended(timeout)
        if status is None:
            raise subprocess.TimeoutExpired("relevo", timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        """Nothing happens where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it without a word."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Asks it to end."""
        self.send_signal(signal.SIGTERM)

    def _ended(self, longest_s: float | None) -> int | None:
        if self.returncode is None and select.select([self._ending], [], [], longest_s)[0]:
            told = self._ending.recv(REAPED)
            assert told, "the process that forks was ended"
            self.returncode = os.waitstatus_to_exitcode(int.from_bytes(told, "big"))
            self._ending.close()
        return self.returncode


class _Forks:
    """The process that forks, started when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._wire: socket.socket | None = None

    def start(self, words: Sequence[str], env: Mapping[str, str], folder: str, files: Sequence[int]) -> Forked:
        """Have a command begun, with these standard input, output and error."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        said = json.dumps([list(words), dict(env), folder]).encode()
        with theirs, self._lock:
            socket.send_fds(self._begun(), [said], [theirs.fileno(), *files])
        return Forked(int.from_bytes(ours.recv(REAPED), "big"), ours)

    def _begun(self) -> socket.socket:
        if self._wire is None:
            self._wire, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            command = [sys.executable, "-m", "tests.forked", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
            theirs.close()
            atexit.register(self._end)
        return self._wire

    def _end(self) -> None:
        if self._wire is not None and self._process is not None:
            self._wire.close()
            self._process.wait()


_forks = _Forks()


def start(
    *words: str,
    stdout: int,
    stderr: int,
    stdin: int | None = None,
    env: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Forked:
    """Begin ``relevo WORDS``, with the numbers of open files. ``stdin`` None: nothing comes. ``env`` and ``folder``
    None: ours."""
    with open(os.devnull, "rb") as nothing:
        read = nothing.fileno() if stdin is None else stdin
        named = os.environ if env is None else env
        return _forks.start(words, named, str(folder or Path.cwd()), [read, stdout, stderr])


def _serve(wire: socket.socket) -> None:
    from relevo.cli import COMMANDS, app

    for name in COMMANDS:
        app[name]
    gc.collect()
    gc.freeze()  # or the first collection of each process would copy all of it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    while True:
        said, files, *_ = socket.recv_fds(wire, LONGEST_MESSAGE, 4)
        if not said:
            return
        if os.fork() == 0:
            wire.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            words, env, folder = json.loads(said)
            _watch(words, env, folder, socket.socket(fileno=files[0]), files[1:])
            return
        for each in files:
            os.close(each)


def _watch(words: list[str], env: dict[str, str], folder: str, ending: socket.socket, files: list[int]) -> None:
    """Fork the command itself, and tell how it ends."""
    if (pid := os.fork()) == 0:
        ending.close()
        _become(words, env, folder, files)
    for each in (0, 1, 2, *files):
        os.close(each)
    ending.send(pid.to_bytes(REAPED, "big"))
    _, status = os.waitpid(pid, 0)
    ending.send(status.to_bytes(REAPED, "big"))
    os._exit(0)


def _become(words: list[str], env: dict[str, str], folder: str, files: list[int]) -> None:
    from relevo.cli import main

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that tests in the background has it ignored
    for number, each in enumerate(files):
        os.dup2(each, number)
        os.close(each)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    main(words)  # raises SystemExit, which ends this process as it would any


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
