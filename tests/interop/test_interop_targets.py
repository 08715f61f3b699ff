"""One message from the socket of the daemon through its queue to every kind of target at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from daemons import PATIENCE, Lines, running

BODY = b"Subject: x\r\n\r\n.\r\n..two\r\n\xc3\xa4\r\n"

MORE = """\
relay_rules:
  - {{name: a command, to_domains: [pipe.example], relay: command}}
  - {{name: a web server, to_domains: [hook.example], relay: hook}}
  - {{name: a message store, to_domains: [lmtp.example], relay: store}}
  - {{name: nowhere, to_domains: [nowhere.example], relay: nowhere}}
relays:
  command: {{type: pipe, command: [/bin/sh, -c, 'cat > "$QUEUE_ID.$LOCAL_PART"'], directory: {folder}}}
  hook: {{type: webhook, url: "http://127.0.0.1:{web}/in"}}
  store: {{type: lmtp, path: {store}/lmtp.sock}}
  nowhere: {{type: lmtp, path: {folder}/nowhere}}
queue: {{path: {folder}/queue}}
"""
STORE = "  - {name: store, listen: [./lmtp.sock], role: lmtp}"
STORE_RULES = "relay_rules: [{name: all, to_domains: [lmtp.example], deliver: mail}]\n"


@contextmanager
def web_server(bodies: list[bytes]) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_every_kind_of_target(tmp_path: Path) -> None:
    here, there, out = tmp_path / "daemon", tmp_path / "lmtp", tmp_path / "out"
    for folder in (here, there, out):
        folder.mkdir()
    posted: list[bytes] = []
    with (
        web_server(posted) as web,
        running(there, STORE, STORE_RULES) as store,
        running(here, more=MORE.format(folder=out, store=there, web=web)) as daemon,
    ):
        with Lines(daemon.port("lenient"), "127.0.0.2") as client:
            client.socket.sendall(
                b"EHLO client.example\r\nMAIL FROM:<sender@client.example> BODY=8BITMIME\r\n"
                b"RCPT TO:<u@pipe.example>\r\nRCPT TO:<v@pipe.example>\r\nRCPT TO:<u@hook.example>\r\n"
                b"RCPT TO:<u@lmtp.example>\r\nRCPT TO:<u@nowhere.example>\r\nDATA\r\n"
                + BODY.replace(b"\r\n.", b"\r\n..")
                + b".\r\n"
            )
            assert client.codes(10) == ["220", *["250"] * 7, "354", "250"]
        end = time.monotonic() + PATIENCE
        while len(daemon.facts("delivered")) < 4 or not daemon.facts("deferred"):
            assert time.monotonic() < end, (daemon.facts("delivered"), daemon.facts("deferred"))
            time.sleep(0.05)
        taken = [path.read_bytes() for path in out.glob("*.[uv]")] + posted
        assert len(taken) == 3
        assert all(message.startswith(b"Received: ") and message.endswith(BODY) for message in taken)
        (stored,) = store.stored("u", "lmtp.example")
        assert stored.replace(b"\n", b"\r\n").endswith(BODY)
        (put_off,) = [fact["reply"] for fact in daemon.facts("deferred")]
        assert put_off == f"451 4.4.1 {out}/nowhere: Cannot connect: No such file or directory"
        remotes = {fact["recipient"]: fact["remote"] for fact in daemon.facts("delivered")}
        assert remotes["u@hook.example"] == f"127.0.0.1:{web}"
        assert remotes["u@lmtp.example"] == f"{there}/lmtp.sock"
