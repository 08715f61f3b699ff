"""`smtpmaild healthcheck` and its probe, against listeners that greet, refuse, hang or are not there."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from authority import issue
from running import Runner

from smtpmaild.server.probe import probe
from smtpmaild.server.proxy_protocol import Header, parse

Answer = Callable[[socket.socket], None]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(capfd, monkeypatch)


class Listener:
    """Listens and lets a function answer one connection."""

    def __init__(self) -> None:
        self.heard = b""
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __call__(self, answer: Answer, family: int = socket.AF_INET, address: object = ("127.0.0.1", 0)) -> str:
        sock = socket.socket(family)
        sock.bind(address)  # type: ignore[arg-type]
        sock.listen()
        self._sockets.append(sock)
        thread = threading.Thread(target=self._serve, args=(sock, answer))
        self._threads.append(thread)
        thread.start()
        name = sock.getsockname()
        if isinstance(name, str):
            return name
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"

    def _serve(self, sock: socket.socket, answer: Answer) -> None:
        connection, _ = sock.accept()
        with connection:
            answer(connection)
            connection.settimeout(5)
            try:
                self.heard += connection.recv(100)
            except OSError:
                pass

    def close(self) -> None:
        for thread in self._threads:
            thread.join(5)
        for sock in self._sockets:
            sock.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


def greets(connection: socket.socket) -> None:
    connection.sendall(b"220 mx.example.com ready\r\n")


def refuses(connection: socket.socket) -> None:
    connection.send(b"421 4.7.0 Too many connections\r\n")


def says_nothing(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)


def says_evil(connection: socket.socket) -> None:
    connection.sendall(b"220 \x1b[2J\xff\n")


def hangs(connection: socket.socket) -> None:
    pass


ANSWERS = [
    (greets, "220 mx.example.com ready"),
    (says_nothing, "closed without a banner"),
    (says_evil, "220 ?[2J?"),
    (hangs, "timed out"),
]


@pytest.mark.parametrize(("answer", "line"), ANSWERS)
def test_the_first_line_is_the_answer(listener: Listener, answer: Answer, line: str) -> None:
    assert probe(listener(answer), 0.3) == line


def test_one_that_refuses_and_is_gone_was_heard(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(socket.socket, "sendall", broken)

    assert probe(listener(refuses), 1.0) == "421 4.7.0 Too many connections"


def test_a_probe_says_goodbye(listener: Listener) -> None:
    address = listener(greets)
    assert probe(address, 1.0).startswith("220 ")
    listener.close()
    assert listener.heard == b"QUIT\r\n"


def test_other_kinds_of_listeners(listener: Listener, tmp_path: Path) -> None:
    assert probe(listener(greets, socket.AF_UNIX, str(tmp_path / "smtp.sock")), 1.0).startswith("220 ")
    assert probe(listener(greets, socket.AF_INET6, ("::1", 0)), 1.0).startswith("220 ")
    address = listener(greets, socket.AF_INET6, ("::", 0))
    assert address.startswith("[::]:")
    assert probe(address, 1.0).startswith("220 ")
    address = listener(greets, address=("0.0.0.0", 0))
    assert address.startswith("0.0.0.0:")
    assert probe(address, 1.0).startswith("220 ")


def test_listener_behind_a_proxy_is_told_who_asks(listener: Listener) -> None:
    heard: list[bytes] = []

    def greets_proxies(connection: socket.socket) -> None:
        heard.append(connection.recv(100))
        greets(connection)

    assert probe(listener(greets_proxies), 1.0, as_proxy=True).startswith("220 ")
    assert isinstance(parse(heard[0]), Header)


def test_listener_within_tls(listener: Listener, tmp_path: Path) -> None:
    pair = issue(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)

    def greets_within_tls(connection: socket.socket) -> None:
        with context.wrap_socket(connection.dup(), server_side=True) as encrypted:
            greets(encrypted)
            encrypted.recv(100)

    assert probe(listener(greets_within_tls), 2.0, encrypted=True) == "220 mx.example.com ready"
    assert "SSL" in probe(listener(greets), 2.0, encrypted=True)


def test_nobody_there(tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        assert probe(f"127.0.0.1:{sock.getsockname()[1]}", 1.0) == "Connection refused"
    assert probe(str(tmp_path / "no.sock"), 1.0) == "No such file or directory"


# The command


def config(folder: Path, *listen: str) -> str:
    path = folder / "smtp.yaml"
    listeners = ", ".join(f'{{name: l{n}, listen: ["{one}"]}}' for n, one in enumerate(listen))
    path.write_text(
        f"listeners: [{listeners}]\nlocal_domains: {{a.example: {{deliver: mail}}}}\n"
        "deliver_to: {mail: {type: discard}}\n"
    )
    return str(path)


def test_a_healthy_daemon_is_0(run: Runner, listener: Listener, tmp_path: Path) -> None:
    address = listener(greets)
    ran = run("healthcheck", "-c", config(tmp_path, "systemd:smtp", address))  # an inherited one is not to be found
    assert (ran.status, ran.out) == (0, f"{address}: 220 mx.example.com ready\n")


@pytest.mark.parametrize("answer", [refuses, says_nothing, hangs])
def test_another_is_69(run: Runner, listener: Listener, tmp_path: Path, answer: Answer) -> None:
    ran = run("healthcheck", "--timeout", "0.3", "-c", config(tmp_path, listener(answer)))
    assert ran.status == 69
    assert ran.out.count("\n") == 1


def test_a_greeting_that_is_delayed_is_waited_for(run: Runner, listener: Listener, tmp_path: Path) -> None:
    def greets_late(connection: socket.socket) -> None:
        time.sleep(0.4)
        greets(connection)

    path = Path(config(tmp_path, listener(greets_late)))
    path.write_text(path.read_text().replace("{name: l0,", "{name: l0, greeting_delay: 400ms,"))
    assert run("healthcheck", "--timeout", "0.3", "-c", str(path)).status == 0


def test_it_asks_who_greets_first(run: Runner, listener: Listener, tmp_path: Path) -> None:
    address = listener(greets)
    path = Path(config(tmp_path, "127.0.0.1:1", address))
    path.write_text(path.read_text().replace("{name: l0,", "{name: l0, greeting_delay: 3s,"))
    assert run("healthcheck", "-c", str(path)).out.startswith(f"{address}: 220 ")


def test_it_asks_who_greets_strangers(run: Runner, listener: Listener, tmp_path: Path) -> None:
    address = listener(greets)
    path = Path(config(tmp_path, "127.0.0.1:1", address))
    proxied = "{name: l0, proxy_protocol: true, trusted_proxies: [127.0.0.1],"
    path.write_text(path.read_text().replace("{name: l0,", proxied))
    assert run("healthcheck", "-c", str(path)).out.startswith(f"{address}: 220 ")


def test_where_all_listeners_are_inherited_it_cannot_know(run: Runner, tmp_path: Path) -> None:
    ran = run("healthcheck", "-c", config(tmp_path, "systemd:smtp"))
    assert ran.status == 69
    assert "inherited" in ran.err
