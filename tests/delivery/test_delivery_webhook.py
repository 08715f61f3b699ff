"""HTTP POST: what a web server is sent, proof of who sent it, and what its answers mean."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from authority import authority, bare, issue, write_ca
from delivering import MESSAGE, Bytes, Facts, Unreadable, closing, recipients, run, shared, shown
from pydantic import ValidationError

from smtpmaild.delivery import Outcome, Passed
from smtpmaild.delivery.builtin import build
from smtpmaild.delivery.webhook import WebhookOptions, _Request
from smtpmaild.queue import QueuedMessage
from smtpmaild.smtp.address import NULL_REVERSE_PATH


@dataclass
class Web:
    """A web server. answer: called with the handler, before anything was read."""

    status: int = 200
    said: bytes = b"thanks"
    answer: Callable[[BaseHTTPRequestHandler], None] | None = None
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    port: int = 0


@contextmanager
def serving(web: Web, context: ssl.SSLContext | None = None) -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if web.answer is not None:
                web.answer(self)
                return
            body = self.rfile.read(int(self.headers["Content-Length"]))
            web.requests.append((self.path, dict(self.headers), body))
            self.send_response(web.status)
            self.end_headers()
            self.wfile.write(web.said)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    web.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def post(
    web: Web,
    *addresses: str,
    message: QueuedMessage = MESSAGE,
    scheme: str = "http",
    path: str = "/in?key=1",
    log: Facts | None = None,
    **options: Any,
) -> list[Outcome]:
    found: list[Outcome] = []

    async def work() -> None:
        url = f"{scheme}://localhost:{web.port}{path}"
        agent = build(WebhookOptions(type="webhook", url=url, **options), shared(log))
        async with closing(agent):
            found.extend(await agent.deliver(message, recipients(*(addresses or ("a@x.example",)))))

    run(work())
    return found


def test_message_as_it_is() -> None:
    with serving(Web()) as web:
        found = post(web, "a@x.example", "ü@x.example")
    assert [(str(outcome.reply), outcome.remote, outcome.passed) for outcome in found] == [
        ("250 2.0.0 HTTP 200 thanks", f"localhost:{web.port}", Passed.IN)
    ] * 2
    ((path, headers, body),) = web.requests
    assert path == "/in?key=1"
    assert body == MESSAGE.body.open().read()
    assert headers["Content-Type"] == "message/rfc822"
    assert headers["Smtpmaild-Queue-Id"] == "Q1"
    assert headers["Smtpmaild-Sender"] == "sender@client.example"
    assert headers["Smtpmaild-Recipients"].encode("latin-1").decode() == "a@x.example,ü@x.example"
    assert "Smtpmaild-Signature" not in headers


@pytest.mark.parametrize("size", [0, 1, 2, 3, 192 * 1024 - 1, 192 * 1024, 192 * 1024 + 1, 700_000])
def test_message_in_json(size: int) -> None:
    octets = bytes(range(256)) * (size // 256 + 1)
    with serving(Web()) as web:
        post(web, message=replace(MESSAGE, body=Bytes(octets[:size])), format="json", path="")
    ((path, headers, body),) = web.requests
    assert path == "/"
    assert headers["Content-Type"] == "application/json"
    facts = json.loads(body)
    assert base64.b64decode(facts.pop("message")) == octets[:size]
    assert facts == {
        "queue_id": "Q1", "received_at": 1_700_000_000.0, "sender": "sender@client.example",
        "recipients": ["a@x.example"],
    }  # fmt: skip


@pytest.mark.parametrize("form", ["raw", "json"])
def test_signature_proves_body_envelope_and_age(form: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    with serving(Web()) as web:
        post(web, "a@x.example", "b@x.example", format=form, secret_file=str(tmp_path / "secret"))
    ((_, headers, body),) = web.requests
    timestamp = headers["Smtpmaild-Timestamp"]
    assert abs(int(timestamp) - time.time()) < 60
    signed = f"{timestamp}\nQ1\nsender@client.example\na@x.example,b@x.example\n".encode() + body
    expected = hmac.new(b"s3cret", signed, hashlib.sha256).hexdigest()
    assert headers["Smtpmaild-Signature"] == f"sha256={expected}"


def test_the_check_in_the_manual(tmp_path: Path) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "relaying.md").read_text()
    names: dict[str, Any] = {}
    exec(manual.partition("```python\n")[2].partition("```")[0], names)
    is_ours: Callable[[dict[str, str], bytes, bytes], bool] = names["is_ours"]
    (tmp_path / "secret").write_text("s3cret")
    with serving(Web()) as web:
        post(web, "a@x.example", secret_file=str(tmp_path / "secret"))
    ((_, headers, body),) = web.requests
    assert is_ours(headers, body, b"s3cret")
    assert not is_ours(headers, body + b"x", b"s3cret")
    assert not is_ours(headers, body, b"other")
    assert not is_ours({**headers, "Smtpmaild-Recipients": "b@x.example"}, body, b"s3cret")
    assert not is_ours({**headers, "Smtpmaild-Timestamp": "1700000000"}, body, b"s3cret")


@pytest.mark.parametrize(
    ("status", "options", "reply"),
    [
        (200, {}, "250 2.0.0"),
        (204, {}, "250 2.0.0"),
        (301, {}, "451 4.3.0"),
        (400, {}, "554 5.3.0"),
        (404, {"on_4xx": "retry"}, "451 4.3.0"),
        (408, {}, "451 4.3.0"),
        (413, {}, "554 5.3.0"),
        (425, {}, "451 4.3.0"),
        (429, {}, "451 4.3.0"),
        (500, {}, "451 4.3.0"),
        (503, {}, "451 4.3.0"),
    ],
)
def test_status_decides(status: int, options: dict[str, Any], reply: str) -> None:
    with serving(Web(status, b"" if status == 204 else b"  because\x1b\nof this")) as web:
        (found,) = shown(post(web, **options))
    assert found == f"{reply} HTTP {status}" + ("" if status == 204 else " because?")


def test_long_answer_is_cut() -> None:
    with serving(Web(500, b"x" * 1_000_000)) as web:
        (found,) = shown(post(web))
    assert len(found) < 300


def refuse_at_once(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(413)
    handler.end_headers()
    handler.wfile.flush()
    handler.connection.shutdown(1)
    while handler.rfile.read(100_000):
        pass


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.close()


def stall(handler: BaseHTTPRequestHandler) -> None:
    handler.rfile.read()


def babble(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"220 mx.example ESMTP\r\n")


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (refuse_at_once, "554 5.3.0 HTTP 413"),
        (hang_up, "451 4.4.2 *"),
        (stall, "451 4.4.2 *: the web server took too long"),
        (babble, "451 4.4.2 *"),
    ],
)
def test_trouble_with_the_server(answer: Callable[[BaseHTTPRequestHandler], None], reply: str) -> None:
    message = replace(MESSAGE, body=Bytes(b"x\r\n" * 500_000))
    with serving(Web(answer=answer)) as web:
        (found,) = shown(post(web, message=message, timeout=1.0))
    start, _, end = reply.partition("*")
    assert found.startswith(start) and found.endswith(end), found


def test_message_that_requires_tls_is_not_posted_in_clear() -> None:
    with serving(Web()) as web:
        message = replace(MESSAGE, parameters={"REQUIRETLS": ""})
        assert shown(post(web, message=message)) == ["550 5.7.10 Encryption needed"]
        report = replace(message, reverse_path=NULL_REVERSE_PATH)  # RFC 8689 §5
        assert post(web, message=report)[0].reply.code == 250


def test_nobody_listens() -> None:
    with serving(Web()) as web:
        pass
    assert shown(post(web)) == [f"451 4.4.2 localhost:{web.port}: [Errno 111] Connection refused"]


def test_cancelled_delivery_ends_its_request() -> None:
    async def work(web: Web) -> None:
        agent = build(WebhookOptions(type="webhook", url=f"http://127.0.0.1:{web.port}/"), shared())
        task = asyncio.create_task(agent.deliver(MESSAGE, recipients("a@x.example")))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(agent.close(), 5)  # waits for the thread: it has been woken

    with serving(Web(answer=stall)) as web:
        run(work(web))


@pytest.mark.parametrize(("name", "reply"), [("localhost", "250 2.0.0"), ("x.example", "451 4.4.2")])
def test_certificate_of_the_server_is_verified(name: str, reply: str, tmp_path: Path) -> None:
    pair = issue(tmp_path, name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with serving(Web(), context) as web:
        (found,) = shown(post(web, scheme="https", ca_file=write_ca(tmp_path)))
    assert found.startswith(reply), found


def test_authority_is_taken_as_it_is_by_every_python(tmp_path: Path) -> None:
    """From Python 3.13 on `create_default_context()` refuses authorities that relays and older Pythons take."""
    pair = issue(tmp_path, "localhost")
    (tmp_path / "ca.pem").write_bytes(bare(authority()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with serving(Web(), context) as web:
        (found,) = shown(post(web, scheme="https", ca_file=str(tmp_path / "ca.pem")))
    assert found.startswith("250 2.0.0"), found


def test_secret_that_cannot_be_read(tmp_path: Path) -> None:
    log = Facts()
    with serving(Web()) as web:
        (found,) = shown(post(web, log=log, secret_file=str(tmp_path / "nowhere")))
    assert found == "451 4.3.5 Cannot read the secret or the authorities of the webhook"
    assert log.events == ["webhook_not_ready"]
    assert web.requests == []


def test_message_that_cannot_be_read() -> None:
    with serving(Web()) as web:
        (found,) = shown(post(web, message=replace(MESSAGE, body=Unreadable()), timeout=2.0))
    assert found.startswith("451 4.4.2 ")


@pytest.mark.parametrize(
    "url", ["ftp://x/", "http://", "x", "http://u:p@x/", "http://x:y/", "http://x/ y", "http://x/\n", "http://ü/"]
)
def test_url_that_is_none(url: str) -> None:
    with pytest.raises(ValidationError):
        WebhookOptions(type="webhook", url=url)


def test_no_secret_is_shown() -> None:
    options = WebhookOptions(type="webhook", url="http://x/")
    assert "s3cret" not in repr(_Request(options, urlsplit("http://x/"), MESSAGE, (), b"s3cret"))
