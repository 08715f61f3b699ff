"""Delivery to servers that are not ours: Postfix, Exim, Dovecot's LMTP and smtp-sink, in their good and bad moods."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from authority import issue, write_ca
from conftest import find_program
from delivering import EIGHT_BIT, MESSAGE, PATIENCE, Bytes, address, closing, recipients, run, shared, shown
from ports import free_port
from postfix import open_folder, postfix

from smtpmaild.delivery import Outcome, Passed
from smtpmaild.delivery.builtin import build
from smtpmaild.delivery.lmtp import LmtpOptions
from smtpmaild.delivery.options import TimeoutOptions
from smtpmaild.delivery.smtp import SmtpOptions
from smtpmaild.queue import QueuedMessage

NeedsProgram = Callable[[str], str]

pytestmark = [pytest.mark.debian, pytest.mark.skipif(os.getuid() != 0, reason="these servers start as root")]

#: Lines that a careless sender or receiver would change.
BODY = b"Subject: test\r\nMessage-ID: <1@client.example>\r\nDate: Mon, 2 Nov 2026 10:00:00 +0000\r\n"
BODY += b"From: sender@client.example\r\nTo: ok@local.example\r\n\r\n"
BODY += b".\r\n..two\r\n.leading\r\nFrom the beginning\r\n" + b"x" * 900 + b"\r\n"
WITH_DOTS = replace(MESSAGE, body=Bytes(BODY))
LARGE = replace(MESSAGE, body=Bytes(BODY + (b"y" * 70 + b"\r\n") * 20_000))
MIXED = ("ok@local.example", "unknown@local.example", "busy@local.example", "second@local.example")


def deliver(
    options: SmtpOptions | LmtpOptions, *addresses: str, message: QueuedMessage = WITH_DOTS, times: int = 1
) -> list[Outcome]:
    """What comes of the last of so many times."""
    found: list[Outcome] = []

    async def work() -> None:
        async with closing(build(options, shared())) as agent:
            for _ in range(times):
                found[:] = await agent.deliver(message, recipients(*addresses))

    run(work())
    return found


def to(port: int, **options: Any) -> SmtpOptions:
    return SmtpOptions(host="localhost", port=port, ip=("ipv4",), **options)


def codes(outcomes: Sequence[Outcome]) -> list[str]:
    return [f"{outcome.reply.code} {outcome.reply.enhanced}".strip() for outcome in outcomes]


def wait_until(is_so: Callable[[], bool], log: Callable[[], str] = str) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end, log()
        time.sleep(0.02)


def is_listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def bodies(maildir: Path) -> list[bytes]:
    """The messages of a Maildir as they were sent: behind the last Received field, with CRLF."""
    files = sorted((maildir / "new").iterdir()) if (maildir / "new").exists() else []
    return [b"Subject: " + file.read_bytes().partition(b"\nSubject: ")[2].replace(b"\n", b"\r\n") for file in files]


@contextmanager
def process(command: Sequence[str], is_up: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    """A server in the foreground; its children end with it."""
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL) as it:
        try:
            wait_until(lambda: is_up() or it.poll() is not None)
            assert it.poll() is None
            yield it
        finally:
            it.terminate()
            try:
                it.wait(PATIENCE)
            finally:
                try:
                    os.killpg(it.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass


# Postfix

POSTFIX_SERVICES = """\
127.0.0.1:{port} inet n - n - - smtpd
127.0.0.1:{plain} inet n - n - - smtpd
  -o smtpd_discard_ehlo_keywords=chunking,pipelining,8bitmime,smtputf8,dsn,size,starttls
anvil      unix - - n - 1 anvil
tlsmgr     unix - - n 1000? 1 tlsmgr
virtual    unix - n n - - virtual
"""


@dataclass(frozen=True)
class Postfixes:
    """ports: False offers everything, True nothing.  mail: Maildirs."""

    ports: dict[bool, int]
    mail: Path


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def postfixes(folder: Path) -> Iterator[Postfixes]:
    program = find_program("postfix")
    home = folder / "postfix"
    mail = home / "mail"
    mail.mkdir(parents=True)
    shutil.chown(mail, "nobody", "nogroup")
    pair = issue(home, "localhost")
    port, plain = free_port(), free_port()
    settings = {
        "virtual_mailbox_domains": "local.example",
        "virtual_mailbox_base": str(mail),
        "virtual_mailbox_maps": "inline:{ok@local.example=ok/, second@local.example=second/, busy@local.example=busy/}",
        "virtual_uid_maps": "static:65534",
        "virtual_gid_maps": "static:65534",
        "virtual_minimum_uid": "100",
        "local_recipient_maps": "",
        "smtpd_recipient_restrictions": "check_recipient_access inline:{{busy@local.example=450 4.2.1 busy}},"
        " reject_unauth_destination",
        "smtpd_tls_cert_file": str(pair.certificate),
        "smtpd_tls_key_file": str(pair.key),
        "smtpd_tls_security_level": "may",
        "smtpd_peername_lookup": "no",
    }
    services = POSTFIX_SERVICES.format(port=port, plain=plain)
    with postfix(home, program, settings, services):
        wait_until(lambda: is_listening(port) and is_listening(plain))
        yield Postfixes({False: port, True: plain}, mail)


@pytest.mark.parametrize("is_plain", [False, True], ids=["everything offered", "nothing offered"])
def test_postfix_mixed_recipients(postfixes: Postfixes, is_plain: bool) -> None:
    port = postfixes.ports[is_plain]
    found = deliver(to(port), *MIXED)
    assert codes(found) == ["250 2.0.0", "550 5.1.1", "450 4.2.1", "250 2.0.0"]
    assert {outcome.remote for outcome in found} == {f"localhost [127.0.0.1]:{port}"}
    assert found[0].passed is (Passed.OUT if is_plain else Passed.ON)
    assert "queued as" in found[0].reply.text


@pytest.mark.parametrize("is_plain", [False, True], ids=["BDAT", "DATA"])
@pytest.mark.parametrize("message", [WITH_DOTS, LARGE], ids=["small", "large"])
def test_postfix_gets_what_was_sent(postfixes: Postfixes, is_plain: bool, message: QueuedMessage) -> None:
    mailbox = postfixes.mail / "ok"
    before = len(bodies(mailbox))
    assert codes(deliver(to(postfixes.ports[is_plain]), "ok@local.example", message=message)) == ["250 2.0.0"]
    wait_until(lambda: len(bodies(mailbox)) > before)
    assert message.body.open().read() in bodies(mailbox)


@pytest.mark.parametrize("tls", ["none", "may", "required", "verify"])
def test_postfix_tls(postfixes: Postfixes, folder: Path, tls: Any) -> None:
    options = to(postfixes.ports[False], tls=tls, ca_file=write_ca(folder))
    assert codes(deliver(options, "ok@local.example", times=2)) == ["250 2.0.0"]


def test_postfix_without_tls(postfixes: Postfixes) -> None:
    assert codes(deliver(to(postfixes.ports[True], tls="required"), "ok@local.example")) == ["451 4.7.4"]


def test_postfix_utf8_and_8_bit(postfixes: Postfixes) -> None:
    sender = replace(EIGHT_BIT, reverse_path=address("jürgen@bücher.example"), is_utf8=True)
    assert codes(deliver(to(postfixes.ports[False]), "ok@local.example", message=sender)) == ["250 2.0.0"]
    assert codes(deliver(to(postfixes.ports[True]), "ok@local.example", message=sender)) == ["554 5.6.3"]
    assert codes(deliver(to(postfixes.ports[True]), "ok@local.example", message=replace(MESSAGE, is_utf8=True))) == [
        "550 5.6.7"
    ]


def test_postfix_takes_dsn_parameters(postfixes: Postfixes) -> None:
    message = replace(WITH_DOTS, parameters={"RET": "HDRS", "ENVID": "QQ314159"})
    (recipient,) = recipients("ok@local.example")
    recipient = replace(recipient, parameters={"NOTIFY": "SUCCESS,DELAY", "ORCPT": "rfc822;ok@local.example"})

    async def work() -> None:
        async with closing(build(to(postfixes.ports[False]), shared())) as agent:
            assert codes(await agent.deliver(message, [recipient])) == ["250 2.0.0"]

    run(work())


def test_postfix_refuses_by_size(postfixes: Postfixes) -> None:
    class Huge(Bytes):
        size = 10**12

    (found,) = shown(deliver(to(postfixes.ports[False]), "ok@local.example", message=replace(MESSAGE, body=Huge(b""))))
    assert found.startswith("552 5.3.4 localhost [127.0.0.1]")


def test_postfix_takes_many_messages_over_one_connection(postfixes: Postfixes) -> None:
    assert (
        codes(deliver(to(postfixes.ports[False]), "ok@local.example", "second@local.example", times=30))
        == ["250 2.0.0"] * 2
    )


# Exim

EXIM = """\
primary_hostname = exim.example
exim_path = {program}
spool_directory = {folder}/spool
log_file_path = {folder}/log-%s
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
exim_user = nobody
exim_group = nogroup
keep_environment =
add_environment = PATH=/usr/bin:/bin
rfc1413_query_timeout = 0s
pipelining_connect_advertise_hosts =
chunking_advertise_hosts = {chunking}
dsn_advertise_hosts = *
acl_smtp_rcpt = rcpt
begin acl
rcpt:
  deny  recipients = unknown@local.example
        message = 5.1.1 unknown user
  defer recipients = busy@local.example
        message = 4.2.1 busy
  accept
begin routers
all:
  driver = accept
  transport = file
begin transports
file:
  driver = appendfile
  directory = {folder}/mail/${{lookup{{$local_part}}dsearch{{{folder}/mail}}}}
  maildir_format
  user = nobody
  group = nogroup
"""


@contextmanager
def exim(folder: Path, program: str, chunking: str) -> Iterator[tuple[int, Path]]:
    home = folder / f"exim{bool(chunking)}"
    for made in (home, home / "mail", home / "mail" / "ok", home / "mail" / "second"):
        made.mkdir()
        shutil.chown(made, "nobody", "nogroup")
    port = free_port()
    (home / "exim.conf").write_text(EXIM.format(folder=home, program=program, port=port, chunking=chunking))
    with process([program, "-C", str(home / "exim.conf"), "-bdf"], lambda: is_listening(port)):
        yield port, home / "mail"


@pytest.mark.parametrize("chunking", ["*", ""], ids=["BDAT", "DATA"])
def test_exim(folder: Path, needs_program: NeedsProgram, chunking: str) -> None:
    with exim(folder, needs_program("exim4"), chunking) as (port, mail):

        def log() -> str:
            return (mail.parent / "log-main").read_text()

        found = deliver(to(port), *MIXED)
        assert codes(found) == ["250", "550 5.1.1", "451 4.2.1", "250"]
        assert "OK id=" in found[0].reply.text
        assert found[0].passed is Passed.ON
        wait_until(lambda: len(bodies(mail / "ok")) == 1, log)
        assert bodies(mail / "ok") == [BODY]
        # Exim makes a certificate of its own at once: good enough for `required`, not for `verify`.
        assert codes(deliver(to(port, tls="required"), "ok@local.example", message=LARGE, times=3)) == ["250"]
        assert codes(deliver(to(port, tls="verify"), "ok@local.example")) == ["451 4.7.5"]
        wait_until(lambda: len(bodies(mail / "ok")) == 4, log)
        assert LARGE.body.open().read() in bodies(mail / "ok")


# Dovecot

DOVECOT = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
ssl = no
protocols = lmtp
postmaster_address = postmaster@local.example
mail_location = maildir:{folder}/mail/%n
default_internal_user = nobody
default_internal_group = nogroup
default_login_user = nobody
first_valid_uid = 1
passdb {{
  driver = passwd-file
  args = username_format=%n {folder}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%n {folder}/users
}}
service lmtp {{
  user = nobody
  unix_listener lmtp {{
    mode = 0666
  }}
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
service anvil {{
  chroot =
}}
"""


@pytest.fixture(scope="module")
def dovecot(folder: Path) -> Iterator[tuple[Path, int]]:
    """(folder, port)."""
    program = find_program("dovecot")
    home = folder / "dovecot"
    home.mkdir()
    for name in ("mail", "state"):
        (home / name).mkdir()
        shutil.chown(home / name, "nobody", "nogroup")
    if not Path("/usr/lib/dovecot/lmtp").exists():
        find_program("dovecot-lmtpd")
    (home / "users").write_text(
        "".join(f"{user}:{{PLAIN}}x:65534:65534::{home}/mail/{user}::\n" for user in ("ok", "second"))
    )
    port = free_port()
    (home / "dovecot.conf").write_text(DOVECOT.format(folder=home, port=port))
    command = [program, "-F", "-c", str(home / "dovecot.conf")]
    with process(command, lambda: (home / "run" / "lmtp").exists() and is_listening(port)):
        yield home, port


@pytest.mark.parametrize("way", ["unix", "tcp"])
def test_dovecot(dovecot: tuple[Path, int], way: str) -> None:
    home, port = dovecot
    where: dict[str, Any] = (
        {"path": str(home / "run" / "lmtp")} if way == "unix" else {"host": "127.0.0.1", "port": port}
    )
    before = bodies(home / "mail" / "ok").count(BODY)
    found = deliver(
        LmtpOptions(type="lmtp", **where), "ok@local.example", "unknown@local.example", "second@local.example", times=2
    )
    assert codes(found) == ["250 2.0.0", "550 5.1.1", "250 2.0.0"]
    assert [outcome.passed for outcome in found] == [Passed.IN] * 3
    assert bodies(home / "mail" / "ok").count(BODY) == before + 2
    assert codes(deliver(LmtpOptions(type="lmtp", **where), "ok@local.example", message=LARGE)) == ["250 2.0.0"]
    assert LARGE.body.open().read() in bodies(home / "mail" / "ok")


# smtp-sink


@contextmanager
def sink(program: str, *options: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    port = free_port()
    command = [program, "-u", "nobody", *options, f"127.0.0.1:{port}", "50"]
    with process(command, lambda: is_listening(port)) as it:
        yield port, it


SHORT = TimeoutOptions(greeting=1, command=1, data=1, block=1, end_of_data=1, quit=1)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ([], "250 2.0.0"),
        (["-p"], "250 2.0.0"),
        (["-8"], "250 2.0.0"),
        (["-e"], "250 2.0.0"),
        (["-r", "mail"], "450 4.3.0"),
        (["-r", "rcpt"], "450 4.3.0"),
        (["-r", "data"], "450 4.3.0"),
        (["-r", "."], "450 4.3.0"),
        (["-f", "mail"], "500 5.3.0"),
        (["-f", "rcpt"], "500 5.3.0"),
        (["-f", "data"], "500 5.3.0"),
        (["-f", "."], "500 5.3.0"),
        (["-f", "connect"], "500 5.3.0"),
        # the connection is closed without a word
        (["-q", "connect"], "451 4.4.2"),
        (["-q", "ehlo"], "451 4.4.2"),
        (["-q", "mail"], "451 4.4.2"),
        (["-q", "rcpt"], "451 4.4.2"),
        (["-q", "data"], "451 4.4.2"),
        (["-q", "."], "451 4.4.2"),
        # no answer in time
        (["-w", "3"], "451 4.4.2"),
        # LMTP at the port of SMTP
        (["-L"], "500 5.5.1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_smtp_sink(needs_program: NeedsProgram, options: list[str], code: str) -> None:
    with sink(needs_program("smtp-sink"), *options) as (port, _):
        assert codes(deliver(to(port, timeouts=SHORT), "a@local.example", "b@local.example")) == [code] * 2


def test_smtp_sink_lmtp(needs_program: NeedsProgram) -> None:
    with sink(needs_program("smtp-sink"), "-L") as (port, _):
        options = LmtpOptions(type="lmtp", host="127.0.0.1", port=port)
        assert codes(deliver(options, "a@local.example", "b@local.example", times=2)) == ["250 2.2.0"] * 2


def test_smtp_sink_goes_in_the_middle_of_many_messages(needs_program: NeedsProgram) -> None:
    found: list[str] = []

    async def work(port: int) -> None:
        async with closing(build(to(port, timeouts=SHORT), shared())) as agent:
            tries = [agent.deliver(WITH_DOTS, recipients("a@local.example")) for _ in range(40)]
            sent = await asyncio.gather(*tries)
            found.extend(code for outcomes in sent for code in codes(outcomes))

    with sink(needs_program("smtp-sink"), "-M", "20") as (port, it):
        run(work(port))
        it.wait(PATIENCE)
    # Every message has its outcome: delivered, or to be tried again.
    assert len(found) == 40
    assert {code.split()[0] for code in found} == {"250", "451"}
    assert found.count("250 2.0.0") <= 20
