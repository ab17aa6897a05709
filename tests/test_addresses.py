"""Where relevo serve listens, and whom it believes."""

from __future__ import annotations

import re
import socket

import pytest

from relevo.errors import ConfigurationError, PortTaken, UsageError
from relevo.serving.server import listen, proxies


@pytest.mark.parametrize(
    ("host", "port", "error"),
    [
        ("127.0.0.1", 65_536, UsageError),
        ("127.0.0.1", -1, UsageError),
        ("192.0.2.1", 0, PortTaken),
        ("no.such.host.invalid", 0, PortTaken),
        ("::ffff:192.0.2.1", 0, PortTaken),
    ],
)
def test_an_address_that_cannot_be_had_is_named(host: str, port: int, error: type[Exception]) -> None:
    with pytest.raises(error, match=re.escape(str(port if error is UsageError else host))):
        listen(host, port)


def test_a_proxy_that_is_no_address_is_a_mistake() -> None:
    assert proxies(" 10.0.0.0/8 ,::1,") == ["10.0.0.0/8", "::1"]
    with pytest.raises(ConfigurationError, match=r"'proxy\.local' is no address"):
        proxies("10.0.0.1,proxy.local")


def test_an_answer_does_not_wait_for_the_acknowledgement_of_its_head() -> None:
    """asyncio sets TCP_NODELAY on what it accepts only if the listening socket names its protocol."""
    with listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP
