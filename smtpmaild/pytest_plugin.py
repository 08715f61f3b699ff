"""For pytest: the fixture `smtpmaild_server`, a mail server that takes everything, new for each test.

pytest loads this module at every start of every suite where smtpmaild is installed, so it imports nothing but pytest
before a test asks for the fixture. docs/testing.md is its page.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from smtpmaild.dev import CatchAll

_MARKER = (
    "smtpmaild(port=0, hostname='localhost', tls='none', auth='optional', accounts=None): what the server of the "
    "fixture smtpmaild_server is like; tls is none, optional, required or implicit, auth is none, optional or required"
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def smtpmaild_server(request: pytest.FixtureRequest) -> Iterator[CatchAll]:
    """A mail server on a free port: host, port, messages, wait_for(), fail(), clear()."""
    from smtpmaild.dev import CatchAll

    marker = request.node.get_closest_marker("smtpmaild")
    with CatchAll(**(marker.kwargs if marker is not None else {})) as server:
        yield server
