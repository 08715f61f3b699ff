"""What all tests share: Debian programs that some of them talk to, loops that watch themselves, a session to look at.

The only conftest.py: a second one anywhere below would be another module of the same name.

A test marked `debian` needs a package that a developer's machine may lack, and skips with a reason where it does. On a
machine that promises the packages (SMTPMAILD_REQUIRE_DEBIAN=1, as .ci/run sets it) such a skip is a failure: else a
forgotten package would switch a test off and nobody would see it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator

import pytest
from browser import Browser, browsing

from smtpmaild.envelope import Envelope, Peer, Session, Transaction

#: Programs in sbin are for us too, whatever the PATH of the caller.
SEARCH_PATH = os.pathsep.join(
    [os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin", "/opt/exim/usr/sbin"]
)
IS_REQUIRED = os.environ.get("SMTPMAILD_REQUIRE_DEBIAN") == "1"
#: The reason of a skip that has nothing to do with packages: the long version of a test.
LEFT_TO_SOAK = "left to `make soak`"


class WatchfulLoops(asyncio.DefaultEventLoopPolicy):
    """Each loop of a test runs in debug mode: a call from the wrong thread raises, a lost coroutine is named."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        loop = super().new_event_loop()
        loop.set_debug(True)
        return loop


# Python 3.14 deprecates policies; there PYTHONASYNCIODEBUG=1 does the same, for the daemons of the tests as well.
if sys.version_info < (3, 14):
    asyncio.set_event_loop_policy(WatchfulLoops())


def find_program(name: str) -> str:
    """The path of a program; where it is missing, the test is skipped, or failed where packages are promised."""
    path = shutil.which(name, path=SEARCH_PATH)
    if path is None:
        missing = f"the program {name!r} is not installed"
        if IS_REQUIRED:
            pytest.fail(missing)
        pytest.skip(missing)
    return path


@pytest.fixture
def needs_program() -> Callable[[str], str]:
    """`swaks = needs_program("swaks")`: the path of the program, or the end of the test with the reason."""
    return find_program


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of a `debian` test into a failure where the packages are promised."""
    report = yield
    is_about_packages = item.get_closest_marker("debian") and LEFT_TO_SOAK not in str(report.longrepr)
    if report.skipped and IS_REQUIRED and is_about_packages and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} may not skip with SMTPMAILD_REQUIRE_DEBIAN=1: {report.longrepr}"
    return report


@pytest.fixture
def session() -> Session:
    return Session("S1", "mx", "mx.example.com", Peer("192.0.2.1", 4711), hello="client.example")


@pytest.fixture
def transaction(session: Session) -> Transaction:
    envelope = Envelope("Q1", "S1", "mx", "mx.example.com", session.peer, session.hello, "SMTP", 0.0)
    return Transaction(session, envelope)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests of this process; skips where Debian's chromium and chromium-driver are missing."""
    with browsing(find_program("chromedriver"), find_program("chromium")) as one:
        yield one
