"""`smtpmaild dev` as its user runs it."""

from __future__ import annotations

import json
import signal
import smtplib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from smtpmaild.cli import cli
from smtpmaild.dev.caught import Caught
from smtpmaild.dev.running import Told
from smtpmaild.web import presence


@contextmanager
def running(*options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "smtpmaild", "dev", "--smtp", "0", "--http", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


def line_of(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def test_from_the_first_line_to_the_last() -> None:
    began = time.monotonic()
    with running("--json", "--fail", "rcpt=550:*@gone.example") as process:
        host, port = line_of(process)["smtp"][0].split(":")
        assert time.monotonic() - began < 10  # alone on a machine: half a second
        (url,) = line_of(process)["http"]
        with smtplib.SMTP(host, int(port), timeout=10) as client:
            client.sendmail("a@example.org", ["b@example.org"], b"Subject: Hello\r\n\r\nx\r\n")
            with pytest.raises(smtplib.SMTPRecipientsRefused, match="550"):
                client.sendmail("a@example.org", ["b@gone.example"], b"x")
        caught = line_of(process)["caught"]
        assert (caught["sender"], caught["subject"]) == ("a@example.org", "Hello")
        with urllib.request.urlopen(f"{url}api/wait?subject=Hello", timeout=10) as answer:
            assert json.load(answer)["id"] == caught["id"]
    assert process.returncode == 0


def test_people_read_lines_that_nobody_else_has_made() -> None:
    with running("--no-web", "--tls", "optional") as process:
        assert process.stdout is not None
        assert "catches all mail" in process.stdout.readline()
        host, port = process.stdout.readline().split()[1].split(":")
        with smtplib.SMTP(host, int(port), timeout=10) as client:
            client.ehlo()
            assert client.has_extn("starttls")
            recipients = [f"r{number}@example.org" for number in range(4)]
            client.sendmail("a@example.org", recipients, b"Subject: =?utf-8?q?=1B[2Jx=0Ay?=\r\n\r\n")
        line = process.stdout.readline()
        assert line == "<a@example.org> to r0@example.org, r1@example.org and 2 more: \\x1b[2Jx\\ny\n"


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--fail", "rcpt=200"], 64, "a failure is a reply code from 400 to 599"),
        (["--smtp", "70000"], 64, "70000 is not in the range 0<=x<=65535"),
        (["--http", "-1"], 64, "-1 is not in the range 0<=x<=65535"),
        (["--key", "x.pem"], 64, "--key goes with --certificate"),
        (["--certificate", "/nowhere.pem", "--no-web", "--smtp", "0"], 73, "/nowhere.pem"),
    ],
)
def test_mistake_on_the_command_line(options: list[str], status: int, words: str) -> None:
    result = CliRunner().invoke(cli, ["dev", *options])
    assert result.exit_code in (status, 2)  # 2 is click's own number, which the console script turns into 64
    assert words in result.output


def test_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        result = CliRunner().invoke(cli, ["dev", "--no-web", "--smtp", str(other.getsockname()[1])])
    assert result.exit_code == 73
    assert "smtpmaild dev: " in result.output


def test_page_needs_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "missing", lambda: "starlette")
    result = CliRunner().invoke(cli, ["dev"])
    assert result.exit_code == 69
    assert "pip install 'smtpmaild[web]'" in result.output


def test_mail_comes_in_though_nobody_reads_of_it() -> None:
    def closed(_: str) -> None:
        raise BrokenPipeError

    told = Told(closed, str, as_json=False)
    told.listening("smtp", ["127.0.0.1:1025"])
    told.changed(("caught", Caught("M1", "a@example.org", ("b@example.org",), b"x")))
