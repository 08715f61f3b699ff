"""Balancers and mail servers that are not ours, in front of the daemon: it sees the client behind them."""

from __future__ import annotations

import smtplib
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from authority import client_context, issue
from daemons import PATIENCE, Daemon
from ports import free_port
from postfix import open_folder, postfix

NeedsProgram = Callable[[str], str]
TEXT = "Subject: test\n\nhello\n"
CLIENT = "127.0.0.77"

LISTENERS = """\
  - {name: proxied, listen: ["127.0.0.3:0"], proxy_protocol: true, trusted_proxies: [127.0.0.1]}
  - {name: proxied-unix, listen: [./proxied.sock], proxy_protocol: true}
  - {name: trusting, listen: ["127.0.0.4:0"], xforward_from: [127.0.0.1], xclient_from: [127.0.0.1]}
"""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with open_folder() as folder:
        daemon = Daemon(folder, listeners=LISTENERS)
        try:
            daemon.port("trusting")
            yield daemon
        finally:
            status = daemon.stop()
        assert status == 0
        assert daemon.facts("session_failed") == []


def eventually(look: Callable[[], Any]) -> Any:
    """What it finds, when it finds something."""
    end = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < end, look
        time.sleep(0.02)
    return found


def closed(daemon: Daemon, listener: str) -> list[dict[str, Any]]:
    return [fact for fact in daemon.facts("session_closed") if fact["listener"] == listener]


def accepted(daemon: Daemon, recipient: str) -> dict[str, Any]:
    def look() -> list[dict[str, Any]]:
        return [fact for fact in daemon.facts("message_accepted") if fact["recipients"] == [recipient]]

    (fact,) = eventually(look)
    assert isinstance(fact, dict)
    return fact


def refused(daemon: Daemon, cause: str) -> list[dict[str, Any]]:
    return [fact for fact in daemon.facts("proxy_refused") if fact["cause"] == cause]


def hand_in(port: int, recipient: str, context: ssl.SSLContext | None = None) -> tuple[str, int]:
    """A message from a client with an address of its own; that address."""
    address, source = ("localhost", port), (CLIENT, 0)
    with (
        smtplib.SMTP(*address, source_address=source, timeout=PATIENCE)
        if context is None
        else smtplib.SMTP_SSL(*address, source_address=source, timeout=PATIENCE, context=context)
    ) as client:
        assert client.sock is not None
        host, own_port = client.sock.getsockname()
        client.ehlo("client.example")
        client.sendmail("a@client.example", [recipient], TEXT)
        return host, own_port


# HAProxy


class HaProxy:
    """One frontend, one server, checked ten times a second."""

    def __init__(self, folder: Path, program: str, server: str, options: str, more: str = "", crt: str = "") -> None:
        self._admin = folder / "admin.sock"
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        number = self._socket.fileno()
        config = folder / "haproxy.cfg"
        config.write_text(
            f"global\n    stats socket {self._admin}\n"
            "defaults\n    mode tcp\n    timeout connect 2s\n    timeout client 20s\n    timeout server 20s\n"
            "    timeout check 5s\n"
            f"listen smtp\n    bind fd@{number}{crt}\n{more}    server mx {server} check inter 100ms {options}\n"
        )
        with (folder / "haproxy.log").open("wb") as log:
            self._process = subprocess.Popen([program, "-db", "-f", str(config)], pass_fds=[number], stderr=log)

    def status(self) -> dict[str, str]:
        """What HAProxy thinks of its server."""
        with socket.socket(socket.AF_UNIX) as admin:
            try:
                admin.connect(str(self._admin))
            except OSError:
                return {}
            admin.sendall(b"show stat\n")
            text = admin.makefile().read().lstrip("# ")
        names, *rows = [line.split(",") for line in text.splitlines() if line]
        return next(row for row in (dict(zip(names, row, strict=False)) for row in rows) if row["svname"] == "mx")

    def wait_until_checked(self) -> dict[str, str]:
        """The server's status when it has been looked at a few times: HAProxy begins with the belief that it is up."""
        first = eventually(lambda: self.status().get("check_status") and self.status())
        time.sleep(0.5)
        assert self._process.poll() is None
        last = self.status()
        assert (last["status"], last["chkfail"]) == ("UP", "0"), (first, last)
        return last

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)
        self._socket.close()


@contextmanager
def haproxy(*arguments: Any, **options: Any) -> Iterator[HaProxy]:
    it = HaProxy(*arguments, **options)
    try:
        yield it
    finally:
        it.stop()


SMTP_CHECK = "    option smtpchk EHLO haproxy.example\n"
VARIANTS = {
    "v1, smtpchk": ("send-proxy", SMTP_CHECK, "L7OK"),
    "v1, plain check": ("send-proxy", "", "L4OK"),
    "v2, smtpchk": ("send-proxy-v2", SMTP_CHECK, "L7OK"),
    "v2, plain check": ("send-proxy-v2", "", "L4OK"),
    "v2, all TLVs": ("send-proxy-v2 proxy-v2-options ssl,cert-cn,crc32c,unique-id,authority", SMTP_CHECK, "L7OK"),
}


@pytest.mark.debian
@pytest.mark.parametrize("variant", VARIANTS)
def test_haproxy(daemon: Daemon, needs_program: NeedsProgram, tmp_path: Path, variant: str) -> None:
    options, more, status = VARIANTS[variant]
    recipient = f"haproxy-{list(VARIANTS).index(variant)}@example.com"
    before = len(closed(daemon, "proxied"))
    server = f"127.0.0.3:{daemon.port('proxied')}"
    with haproxy(tmp_path, needs_program("haproxy"), server, options, more) as proxy:
        assert proxy.wait_until_checked()["check_status"].removeprefix("* ") == status  # "*": it looks again
        host, port = hand_in(proxy.port, recipient)
    fact = accepted(daemon, recipient)
    assert fact["peer"] == f"{host}:{port}"
    assert fact["proxy"].startswith("127.0.0.1:")
    (raw,) = daemon.raw(recipient.partition("@")[0])
    assert f"Received: from client.example ([{CLIENT}])\n".encode() in raw
    # A dozen health checks were no news; the session was.
    sessions = eventually(lambda: closed(daemon, "proxied")[before:])
    (session,) = sessions
    assert session["peer"] == f"{host}:{port}"
    assert daemon.facts("proxy_refused") == []


@pytest.mark.debian
def test_haproxy_that_ends_tls(daemon: Daemon, needs_program: NeedsProgram, tmp_path: Path) -> None:
    """What it tells of TLS is logged and not more: between it and us the mail travels in clear."""
    pair = issue(tmp_path, "localhost")
    both = tmp_path / "both.pem"
    both.write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
    options = "send-proxy-v2 proxy-v2-options ssl,cert-cn,crc32c,authority"
    server = f"127.0.0.3:{daemon.port('proxied')}"
    with haproxy(tmp_path, needs_program("haproxy"), server, options, crt=f" ssl crt {both}") as proxy:
        proxy.wait_until_checked()
        hand_in(proxy.port, "haproxy-tls@example.com", client_context())
    fact = accepted(daemon, "haproxy-tls@example.com")
    assert fact["proxied"]["authority"] == "localhost"
    assert fact["proxied"]["tls_version"] == "TLSv1.3"
    assert "tls" not in fact
    (raw,) = daemon.raw("haproxy-tls")
    assert b" with ESMTP id " in raw


@pytest.mark.debian
def test_haproxy_over_a_unix_socket(daemon: Daemon, needs_program: NeedsProgram, tmp_path: Path) -> None:
    server = f"unix@{daemon.folder / 'proxied.sock'}"
    with haproxy(tmp_path, needs_program("haproxy"), server, "send-proxy-v2", SMTP_CHECK) as proxy:
        proxy.wait_until_checked()
        host, port = hand_in(proxy.port, "haproxy-unix@example.com")
    fact = accepted(daemon, "haproxy-unix@example.com")
    assert (fact["peer"], fact["proxy"]) == (f"{host}:{port}", "local")


def test_client_without_the_balancer_gets_nothing(daemon: Daemon) -> None:
    for source, cause in (("127.0.0.1", "there is no PROXY header"), (CLIENT, "it is not one of trusted_proxies")):
        with socket.create_connection(("127.0.0.3", daemon.port("proxied")), PATIENCE, (source, 0)) as client:
            try:
                client.sendall(b"EHLO client.example\r\n")
                assert client.recv(100) == b""
            except ConnectionError:
                pass
        eventually(partial(refused, daemon, cause))


# nginx


MODULES = "/usr/lib/nginx/modules"
NGINX = """\
load_module {modules}/ngx_stream_module.so;
load_module {modules}/ngx_mail_module.so;
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log info;
events {{}}
stream {{
    server {{
        listen 127.0.0.1:{stream};
        proxy_pass 127.0.0.3:{proxied};
        proxy_protocol on;
    }}
}}
mail {{
    server_name relay.example.net;
    auth_http 127.0.0.1:{auth}/;
    server {{
        listen 127.0.0.1:{mail};
        protocol smtp;
        smtp_auth none;
        xclient on;
    }}
}}
"""


class SaysYes(BaseHTTPRequestHandler):
    """Tells nginx where to send everybody."""

    port = 0

    def do_GET(self) -> None:
        self.send_response(200)
        for name, value in (("Status", "OK"), ("Server", "127.0.0.4"), ("Port", str(self.port))):
            self.send_header(f"Auth-{name}", value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def nginx(daemon: Daemon, folder: Path, program: str) -> Iterator[tuple[int, int]]:
    """The ports of its TCP proxy and of its mail proxy."""
    handler = type("Handler", (SaysYes,), {"port": daemon.port("trusting")})
    with HTTPServer(("127.0.0.1", 0), handler) as auth:
        answering = Thread(target=auth.serve_forever, daemon=True)
        answering.start()
        stream, mail = free_port(), free_port()
        ports = {"stream": stream, "mail": mail, "proxied": daemon.port("proxied"), "auth": auth.server_port}
        (folder / "nginx.conf").write_text(NGINX.format(modules=MODULES, folder=folder, **ports))
        with (folder / "stderr").open("wb") as log:
            process = subprocess.Popen([program, "-p", str(folder), "-c", "nginx.conf"], stderr=log)
        try:
            eventually(partial(answers, stream))
            yield stream, mail
        finally:
            process.terminate()
            process.wait(PATIENCE)
            auth.shutdown()
            answering.join()


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as probe:
            return probe.recv(3) == b"220"
    except OSError:
        return False


@pytest.mark.debian
def test_nginx(daemon: Daemon, needs_program: NeedsProgram, tmp_path: Path) -> None:
    """Its stream proxy sends the header of version 1, its mail proxy XCLIENT."""
    program = needs_program("nginx")
    if not Path(MODULES, "ngx_mail_module.so").exists():
        pytest.skip("nginx has no mail module: libnginx-mod-mail is not installed")
    with nginx(daemon, tmp_path, program) as (stream, mail):
        host, port = hand_in(stream, "nginx-stream@example.com")
        assert accepted(daemon, "nginx-stream@example.com")["peer"] == f"{host}:{port}"
        hand_in(mail, "nginx-mail@example.com")
    fact = accepted(daemon, "nginx-mail@example.com")
    assert (fact["peer"], fact["helo"]) == (f"{CLIENT}:0", "client.example")
    assert fact["proxy"].startswith("127.0.0.1:")


# Clients that speak for others


@pytest.mark.debian
def test_swaks_with_xclient(daemon: Daemon, needs_program: NeedsProgram) -> None:
    ran = subprocess.run(
        [
            needs_program("swaks"), "--server", f"127.0.0.4:{daemon.port('trusting')}", "--from", "a@client.example",
            "--to", "xclient@example.com", "--helo", "client.example", "--xclient-addr", "IPV6:2001:db8::7",
            "--xclient-name", "spike.example", "--xclient-port", "4711", "--xclient-proto", "ESMTP",
            "--xclient-helo", "spike.example", "--xclient-login", "alice", "--body", "hello",
        ],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    fact = accepted(daemon, "xclient@example.com")
    assert (fact["peer"], fact["client_name"], fact["user"]) == ("[2001:db8::7]:4711", "spike.example", "alice")
    assert fact["proxy"].startswith("127.0.0.1:")
    (raw,) = daemon.raw("xclient")
    assert b"Received: from client.example (spike.example [IPv6:2001:db8::7])\n" in raw


@pytest.mark.debian
def test_swaks_that_is_not_trusted(daemon: Daemon, needs_program: NeedsProgram) -> None:
    ran = subprocess.run(
        [
            needs_program("swaks"), "--server", f"127.0.0.1:{daemon.port('strict')}", "--to", "a@example.com",
            "--xclient-addr", "192.0.2.7",
        ],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert ran.returncode != 0
    assert "XCLIENT" in ran.stdout + ran.stderr


# Postfix


@pytest.mark.debian
def test_postfix_forwards_what_it_knows_of_the_client(daemon: Daemon, needs_program: NeedsProgram) -> None:
    """The daemon is its content filter: peer and Received name Postfix, the log names the client too."""
    port = free_port()
    settings = {
        "smtp_send_xforward_command": "yes",
        "transport_maps": f"inline:{{example.com=smtp:[127.0.0.4]:{daemon.port('trusting')}}}",
        "mynetworks": "127.0.0.0/8",
        "smtpd_relay_restrictions": "permit_mynetworks, reject",
        "smtpd_peername_lookup": "no",
        "disable_dns_lookups": "yes",
        "smtp_host_lookup": "native",
    }
    services = f"127.0.0.1:{port} inet n - n - - smtpd\nanvil unix - - n - 1 anvil\nproxymap unix - - n - - proxymap\n"
    with open_folder() as folder, postfix(folder, needs_program("postfix"), settings, services) as mta:
        for number in range(2):
            hand_in(port, f"postfix-{number}@example.com")
        mta.send("a@client.example", ["postfix-local@example.com"], TEXT.encode())
        assert {status for _, status, _ in mta.wait_for("smtp", 3)} == {"sent"}
    for number in range(2):
        fact = accepted(daemon, f"postfix-{number}@example.com")
        forwarded = fact["forwarded"]
        assert fact["peer"].startswith("127.0.0.1:")
        assert (forwarded["addr"], forwarded["helo"], forwarded["proto"]) == (CLIENT, "client.example", "ESMTP")
        assert forwarded["source"] == "REMOTE"
        assert int(forwarded["port"]) > 0
        assert forwarded["ident"]  # Postfix's queue id
        (raw,) = daemon.raw(f"postfix-{number}")
        assert raw.splitlines()[2] == b"Received: from relay.example.net ([127.0.0.1])"
    local = accepted(daemon, "postfix-local@example.com")["forwarded"]
    assert local == {"source": "LOCAL"}
