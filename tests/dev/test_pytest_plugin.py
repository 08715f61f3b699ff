"""The plugin in suites of their own: with smtplib, with pytest-asyncio and aiosmtplib, and where nobody asks for it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

# A suite within the suite forgets what it has imported, and cryptography cannot be imported twice.
import smtpmaild.dev  # noqa: F401
from smtpmaild.tls import self_signed

self_signed.make("localhost")

PAGE = (Path(__file__).resolve().parent.parent.parent / "docs" / "testing.md").read_text()
FIRST, SIGNING_IN, FAILURES, ASYNCIO, PLAIN = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)

SENDING = """
import smtplib
import pytest

def send(server, to="b@example.org"):
    with smtplib.SMTP(server.host, server.port, timeout=5) as client:
        client.sendmail("a@example.org", [to], b"Subject: Hello\\r\\n\\r\\nIt works.\\r\\n")
"""


def test_fixture_catches_and_forgets(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        SENDING
        + """
def test_catches(smtpmaild_server):
    send(smtpmaild_server)
    (message,) = smtpmaild_server.wait_for(1)
    assert (message.sender, message.recipients) == ("a@example.org", ("b@example.org",))
    assert (message.subject, message.text) == ("Hello", "It works.\\n")

def test_begins_empty(smtpmaild_server):
    assert smtpmaild_server.messages == []

def test_fails_by_order(smtpmaild_server):
    smtpmaild_server.fail("rcpt", 451, times=1)
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(smtpmaild_server)
    send(smtpmaild_server)

@pytest.mark.smtpmaild(tls="required", auth="required", accounts={"alice": "secret"}, hostname="mx.example")
def test_marker(smtpmaild_server):
    with smtplib.SMTP("localhost", smtpmaild_server.port, timeout=5) as client:
        client.starttls(context=smtpmaild_server.client_context())
        client.login("alice", "secret")
        assert client.docmd("NOOP")[0] == 250
        client.sendmail("a@example.org", ["b@example.org"], b"x")
    assert smtpmaild_server.messages[0].user == "alice"

@pytest.mark.smtpmaild(colour="red")
def test_marker_with_a_mistake(smtpmaild_server):
    pass

def test_message_of_a_failure(smtpmaild_server):
    send(smtpmaild_server)
    smtpmaild_server.wait_for(lambda message: False, timeout=0.01)
"""
    )
    result = pytester.runpytest_inprocess("--strict-markers", "-W", "error", "-p", "no:asyncio")
    result.assert_outcomes(passed=4, failed=1, errors=1)
    result.stdout.fnmatch_lines(["*TypeError: *colour*", "*there is 1:*", "*to b@example.org: 'Hello'>*"])


def test_examples_of_the_page(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_page_first=FIRST, test_page_signing_in=SIGNING_IN, test_page_failures=FAILURES)
    result = pytester.runpytest_inprocess("--strict-markers", "-W", "error", "-p", "no:asyncio")
    result.assert_outcomes(passed=4)


def test_example_without_pytest(capsys: pytest.CaptureFixture[str]) -> None:
    exec(PLAIN, {})
    assert re.fullmatch(r"127\.0\.0\.1 \d+\n\[\]\n", capsys.readouterr().out)


def test_beside_pytest_asyncio(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import asyncio
import aiosmtplib
import pytest

MESSAGE = b"Subject: Hello\\r\\n\\r\\nIt works.\\r\\n"

async def send(server):
    envelope = {"sender": "a@example.org", "recipients": ["b@example.org"]}
    await aiosmtplib.send(MESSAGE, **envelope, hostname=server.host, port=server.port)

@pytest.mark.asyncio
async def test_asynchronous(smtpmaild_server):
    task = asyncio.create_task(send(smtpmaild_server))
    (message,) = await smtpmaild_server.wait_for_async(1)
    await task
    assert message.subject == "Hello"

def test_synchronous(smtpmaild_server):
    asyncio.run(send(smtpmaild_server))
    assert len(smtpmaild_server.messages) == 1
"""
    )
    pytester.makepyfile(test_page=ASYNCIO)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function")
    result = pytester.runpytest_subprocess("-W", "error", "-v", "-p", "no:hypothesispytest", "-p", "no:xdist")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["plugins:*asyncio*"])


def test_costs_nothing_until_it_is_asked_for() -> None:
    program = (
        "import sys, pytest, smtpmaild.pytest_plugin; print(*(n for n in sys.modules if n.startswith('smtpmaild')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["smtpmaild", "smtpmaild.pytest_plugin"]


def test_marker_is_listed(pytester: pytest.Pytester) -> None:
    pytester.runpytest_inprocess("--markers", "-p", "no:asyncio").stdout.fnmatch_lines(
        ["@pytest.mark.smtpmaild(port=0, *"]
    )
