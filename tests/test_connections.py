"""Connections to a server that may be gone without a word: the kernel is told to give them up soon."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from relevo import Flags
from relevo.db.pool import Database, limits
from tests.conftest import value
from tests.servers import Server

GIVEN_UP = {
    socket.TCP_KEEPIDLE: 5,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 15_000,
}


Limits = dict[int, int]


def to(port: int) -> dict[int, Limits]:
    """The limits of each connection that this process has to a port, as the kernel knows them; by its own port."""
    return dict(_to(port))


def _to(port: int) -> Iterator[tuple[int, Limits]]:
    for name in os.listdir("/proc/self/fd"):
        try:
            descriptor = os.dup(int(name))
        except OSError:
            continue  # it was the listing's own
        try:
            each = socket.socket(fileno=descriptor)
        except OSError:
            os.close(descriptor)  # no socket
            continue
        with each:
            try:
                there = each.family == socket.AF_INET and each.getpeername()[1] == port
            except OSError:
                continue  # not connected
            if there:
                yield (
                    each.getsockname()[1],
                    {option: each.getsockopt(socket.IPPROTO_TCP, option) for option in GIVEN_UP},
                )


async def test_every_connection_is_given_up_soon_when_its_server_is_silent(
    server: Server, ready: Database, database_url: str
) -> None:
    others = to(server.port)
    async with Database(database_url) as database, Flags(database_url), database.transaction(), await ready._connect():
        ours = [limits for number, limits in to(server.port).items() if number not in others]
    assert ours == [GIVEN_UP] * 3


async def test_what_the_connection_string_says_wins(server: Server, database_url: str) -> None:
    own = f"{database_url}?keepalives_idle=77&tcp_user_timeout=7000"
    async with Database(own) as database:
        assert await value(database, "SELECT 1") == 1
        assert GIVEN_UP | {socket.TCP_KEEPIDLE: 77, socket.TCP_USER_TIMEOUT: 7000} in to(server.port).values()


@pytest.mark.parametrize("url", ["postgresql://%zz", "no url"])
def test_what_is_no_connection_string_is_left_to_whoever_connects(url: str) -> None:
    assert limits(url) == {}
