from __future__ import annotations

import pytest

from smtpmaild.config.dns import dns_server


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("127.0.0.1", ("127.0.0.1", 53)),
        ("127.0.0.1:5353", ("127.0.0.1", 5353)),
        ("[2001:DB8:0::1]", ("2001:db8::1", 53)),
        ("[::1]:65535", ("::1", 65535)),
        ("::1", ("::1", 53)),
    ],
)
def test_server(text: str, server: tuple[str, int]) -> None:
    assert dns_server(text) == server


@pytest.mark.parametrize(
    "value", ["", "localhost", "127.0.0.1:", "127.0.0.1:65536", "[::1", "[127.0.0.1]", "1.2.3", 53, None]
)
def test_server_that_is_none(value: object) -> None:
    with pytest.raises(ValueError, match="is not"):
        dns_server(value)
