"""The whole way: clients, two workers, a queue, a next hop that talks too much; then what the log and the file say.

One daemon with `privacy` for all of it: nobody who took part is named anywhere, and yet each life can be told.
"""

from __future__ import annotations

import json
import os
import re
import signal
import smtplib
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running import Runner

from smtpmaild.history.reading import Reading

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """\
hostname: mx.example.com
listeners:
  - {{name: mx, listen: ["127.0.0.1:0"], xforward_from: [127.0.0.0/8]}}
local_domains:
  local.example: {{deliver: mail, mailboxes: [boblocal], relay: hop,
    aliases: {{salesteam: [boblocal, carolfar@far.example]}}}}
deliver_to:
  mail: {{type: maildir, path: "mail/{{domain}}/{{mailbox}}"}}
relay_rules:
  - {{name: office, from_networks: [127.0.0.0/8], to_domains: [far.example], relay: hop}}
relays:
  hop: {{host: 127.0.0.1, port: {hop}, tls: none}}
queue: {{path: queue, retry_first: 1s, report_by: hop}}
policies: {{helo_syntax: {{mode: monitor}}}}
history: {{path: history.sqlite}}
logging: {{format: json, privacy: true, privacy_file: privacy.key}}
workers: 2
"""
#: Whoever took part, by any name.
PEOPLE = (
    "alicesender", "boblocal", "salesteam", "carolfar", "davefar", "nobodyhere", "mallory", "erinutf", "frankverb",
    "ginaforward", "127.0.0.77", "192.0.2.33", "2001:db8", "oneuniqueid", "Confidential", "laptop-of-alice",
)  # fmt: skip
ENDED = ("delivered", "bounced")
#: A subject that wants to run, to turn and to move.
HOSTILE = "Confidential <script>alert(1)</script> \u202egnp.exe \x1b[2J"


class TalkativeHop(socketserver.StreamRequestHandler):
    """Names the recipient in every reply, and the client. Defers carolfar the first time, refuses davefar."""

    deferred: set[str] = set()

    def handle(self) -> None:
        self._say("220 hop.example ESMTP for 127.0.0.77")
        for line in self.rfile:
            verb, _, rest = line.decode().strip().partition(" ")
            name = (re.findall(r"<(.*)>", rest) or [""])[0]
            if verb == "RCPT" and "davefar" in name:
                self._say(f"550-5.1.1 {name}: no such user\r\n550 5.1.1 davefar is unknown to [127.0.0.77]")
            elif verb == "RCPT" and "carolfar" in name and name not in self.deferred:
                self.deferred.add(name)
                self._say(f"451 4.7.1 <{name}> greylisted for 2001:db8::99")
            elif verb == "DATA":
                self._say("354 go on")
                while self.rfile.readline() not in (b".\r\n", b""):
                    pass
                self._say("250 2.0.0 taken for carolfar@far.example from alicesender")
            elif verb == "QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 ok " + name)

    def _say(self, reply: str) -> None:
        self.wfile.write(reply.encode() + b"\r\n")
        self.wfile.flush()


@pytest.fixture(scope="module")
def hop() -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), TalkativeHop) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def until(is_so: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + 20
    while not (found := is_so()):
        assert time.monotonic() < end, what
        time.sleep(0.05)
    return found


class Day:
    """What happened, and where it was written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = str(folder / "smtp.yaml")
        self.history = str(folder / "history.sqlite")
        self.ids: dict[str, str] = {}

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["event"] == event]

    def send(self, port: int, sender: str, to: str, message: bytes, name: str = "", **more: Any) -> None:
        with smtplib.SMTP("127.0.0.1", port, "laptop-of-alice.home.example", 20, ("127.0.0.77", 0)) as client:
            client.ehlo()
            client.mail(sender, more.get("options", ()))
            client.rcpt(to, more.get("rcpt", ()))
            code, reply = client.data(message)
            if name and code == 250:
                self.ids[name] = reply.decode().split()[-1]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory, hop: int) -> Day:
    folder = tmp_path_factory.mktemp("day")
    day = Day(folder)
    Path(day.config).write_text(CONFIG.format(hop=hop))
    command = [sys.executable, "-W", "error", "-m", "smtpmaild", "--config", day.config]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, *["--allow-root"] * (os.geteuid() == 0)], stderr=log, cwd=ROOT)
    try:
        (listening,) = until(lambda: day.logged("listening"), "it listens")
        live(day, int(listening["address"].rpartition(":")[2]))
        process.send_signal(signal.SIGHUP)
        until(lambda: len(day.logged("worker_ended")) == 2, "the workers before are gone")
    finally:
        process.terminate()
        process.wait(20)
    return day


def live(day: Day, port: int) -> None:
    header = b"Message-ID: <oneuniqueid@home.example>\r\nSubject: Confidential\r\n\r\n"
    day.send(port, "alicesender@home.example", "boblocal@local.example", header + b"stored\r\n", "stored")
    day.send(port, "alicesender@home.example", "salesteam@local.example", header + b"alias\r\n", "alias")
    day.send(
        port, "alicesender@home.example", "davefar@far.example", header + b"bounces\r\n", "bounced",
        rcpt=["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;davefar@far.example"],
    )  # fmt: skip
    hostile = (
        f"Subject: {HOSTILE}\r\n".encode() + b"X: " + b"a" * 900 + (b"\r\n " + b"a" * 900) * 1300 + b"\r\n\r\nx\r\n"
    )
    day.send(port, "mallory@evil.example", "boblocal@local.example", hostile, "hostile")
    day.send(port, "mallory@evil.example", "boblocal@local.example", b"bare \n line feed\r\n")
    with smtplib.SMTP("127.0.0.1", port, "bad_laptop-of-alice!", 20, ("127.0.0.77", 0)) as client:
        client.ehlo()
        client.docmd("XFORWARD", "ADDR=192.0.2.33 NAME=laptop-of-alice.home.example HELO=laptop-of-alice.x.example")
        for line in (
            "MAIL FROM:<erinutf@home.example", "VRFY frankverb", "RCPT TO:<frankverb>", "frankverb@x.example",
            "MAIL FROM:<ginaforward@home.example>", "RCPT TO:<nobodyhere@local.example>",
            "RCPT TO:<mallory@elsewhere.example>", "RCPT TO:<ginaforward>",
        ):  # fmt: skip
            client.docmd(line)
    travelling = {day.ids["alias"], day.ids["bounced"]}
    until(lambda: {one["queue_id"] for one in day.log if one["event"] in ENDED} >= travelling, "it has its end")
    until(lambda: day.logged("report_made"), "the sender is told")
    report = day.logged("report_made")[0]["queue_id"]
    until(lambda: [one for one in day.logged("delivered") if one["queue_id"] == report], "the report has arrived")


def test_a_day_in_which_nobody_is_named(
    day: Day, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One test, so that one daemon is enough however tests are shared out."""
    nobody_is_named_anywhere(day)
    what_is_no_person_is_there(day)
    one_client_is_one_pseudonym_in_all_workers(day)
    history_has_what_the_log_has(day)
    run = Runner(capfd, monkeypatch)

    def story(wanted: str) -> str:
        ran = run("trace", "-c", day.config, wanted, "--limit", "20")
        assert ran.status == 0, ran.err
        return ran.out

    lives_can_be_told_by_id(day, story)
    whoever_asks_by_name_today_finds_him(day, story)
    a_hostile_message_is_harmless(day, story)


def nobody_is_named_anywhere(day: Day) -> None:
    files = [*day.folder.glob("history.sqlite*"), day.folder / "log"]
    kept = b"".join(path.read_bytes() for path in files)
    assert len(kept) > 10_000
    assert [name for name in PEOPLE if name.lower().encode() in kept.lower()] == []


def what_is_no_person_is_there(day: Day) -> None:
    (closed,) = (line for line in day.logged("session_closed") if line["refused_recipients"])
    assert [(one["command"], one["rule"]) for one in closed["refusals"]] == [
        ("RCPT", "local_domains.local.example (smtp.yaml:5)"),
        ("RCPT", "no relay rule matched"),
    ]
    assert "home.example" in day.logged("message_accepted")[0]["reverse_path"]
    assert "5.1.1" in day.logged("bounced")[0]["reply"]


def one_client_is_one_pseudonym_in_all_workers(day: Day) -> None:
    peers = {line["peer"] for line in day.logged("session_closed")}
    assert len(peers) == 1
    assert re.fullmatch(r"ip-[0-9a-f]{10}", peers.pop())


def history_has_what_the_log_has(day: Day) -> None:
    with Reading(day.history) as reading:
        events = reading.since(1)[0]
    for name in ("message_accepted", "session_closed", "delivered", "deferred", "bounced", "reloaded", "report_made"):
        assert len([event for event in events if event.name == name]) == len(day.logged(name)), name
    assert [event.name for event in events][-2:] == ["stopping", "stopped"]


def lives_can_be_told_by_id(day: Day, traced: Callable[[str], str]) -> None:
    assert traced(day.ids["alias"]).splitlines()[-1].endswith("= 1 stored, 1 delivered")


def whoever_asks_by_name_today_finds_him(day: Day, traced: Callable[[str], str]) -> None:
    story = traced("davefar@far.example")
    assert story.startswith(f"message {day.ids['bounced']} from <u-")
    assert "davefar" not in story
    assert story.splitlines()[-1].endswith("= bounced")
    assert day.ids["alias"] in traced("127.0.0.77")
    assert traced("<oneuniqueid@home.example>").count("\nmessage 6") + 1 == 3


def a_hostile_message_is_harmless(day: Day, traced: Callable[[str], str]) -> None:
    story = traced(day.ids["hostile"])
    assert re.search(r"1\.\d MB accepted", story)
    assert all(character.isprintable() or character == "\n" for character in story)
