"""The JSON API, called as a server calls it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Coroutine, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_dev_reading import HOSTILE

from smtpmaild.dev.api import Api, disposition_of
from smtpmaild.dev.caught import Caught
from smtpmaild.dev.failures import Failures, parse
from smtpmaild.dev.inbox import Inbox
from smtpmaild.dev.reading import Part

LETTER = (
    b'From: "Shop" <shop@example.org>\r\nTo: alice@example.com\r\nSubject: Your order\r\nDate: x\r\n'
    b"Message-ID: <1@x>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n"
    b"--x\r\nContent-Type: text/plain\r\n\r\nIt is on its way.\r\n"
    b'--x\r\nContent-Type: text/html\r\n\r\n<!doctype html><p>Way<img src="cid:l%6fgo"><img src="cid:none">'
    b'<img src="https://t.example/p">\r\n'
    b"--x\r\nContent-Type: image/png\r\nContent-ID: <LOGO>\r\n\r\nPNG\r\n"
    b'--x\r\nContent-Type: text/html\r\nContent-Disposition: attachment; filename="../evil.html"\r\n\r\n'
    b"<script>1</script>\r\n"
    b"--x--\r\n"
)


#: What MIME is made of, to be put together in any order.
PIECES = [
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"--x",
        b"--x--",
        b"Subject: ",
        b"From: ",
        b"=?utf-8?q?=C3?=",
        b"=?x?b?a?=",
        b'"',
        b"\xff",
        b"\0",
    ),
    *(
        b"Content-Type: ",
        b"multipart/mixed; boundary=x",
        b"text/html; charset=utf-16",
        b"message/rfc822",
        b"text/plain",
    ),
    *(b"Content-Transfer-Encoding: ", b"base64", b"quoted-printable", b"x-uuencode", b"Content-ID: <a>", b"image/png"),
    *(
        b"Content-Disposition: attachment; filename*0*=utf-8''%FF; filename=\"\xe2\x80\xae\"",
        b"<img src=cid:a>",
        b"<!doctype ",
    ),
]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def scope_of(path: str, method: str = "GET", query: Mapping[str, object] | None = None) -> dict[str, Any]:
    """A request as ASGI describes it."""
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": urlencode(query or {}).encode(),
        "headers": [],
        "server": ("127.0.0.1", 8025),
        "client": ("127.0.0.1", 1),
    }


class House:
    """An inbox with its API."""

    def __init__(self) -> None:
        self.inbox = Inbox()
        self.failures = Failures(lambda: 0.5, asyncio.sleep, lambda _: None)
        self.app = Api(self.inbox, self.failures, ["127.0.0.1:1025"])
        self.count = 0

    def catch(self, raw: bytes = LETTER, *recipients: str, **facts: Any) -> str:
        self.count += 1
        known = {"sender": "bounce@example.org", "received_at": 1.5, "client": "127.0.0.1:9", "hello": "x", **facts}
        message = Caught(f"M{self.count}", recipients=recipients or ("alice@example.com",), raw=raw, **known)
        self.inbox.add(message)
        return message.id

    async def ask(self, path: str, method: str = "GET", body: bytes = b"", **query: Any) -> Answer:
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        await self.app(scope_of(path, method, query), receive, send)
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:]))

    def now(self, path: str, method: str = "GET", body: bytes = b"", **query: Any) -> Answer:
        return asyncio.run(self.ask(path, method, body, **query))


@pytest.fixture
def house() -> House:
    return House()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_list_has_the_newest_first(house: House) -> None:
    ids = [house.catch() for _ in range(3)]
    answer = house.now("/api/messages", limit=2).json
    assert (answer["total"], answer["matching"]) == (3, 3)
    assert [one["id"] for one in answer["messages"]] == [ids[2], ids[1]]
    assert answer["messages"][0] == {
        "id": ids[2],
        "received_at": "1970-01-01T00:00:01.500+00:00",
        "sender": "bounce@example.org",
        "recipients": ["alice@example.com"],
        "from": '"Shop" <shop@example.org>',
        "subject": "Your order",
        "size": len(LETTER),
        "attachments": 2,
    }
    assert [one["id"] for one in house.now("/api/messages", before=ids[1]).json["messages"]] == [ids[0]]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", 2),
        ("order", 1),
        ("ON ITS WAY", 1),
        ('"its on"', 0),
        ("from:shop@", 1),
        ("from:bounce", 2),
        ("to:bob", 1),
        ("to:alice order", 1),
        ("subject:way", 0),
        ("has:attachment", 1),
        ("has:wings", 0),
        ("id:m2", 1),
        ("http://example", 0),
        ('"', 2),
    ],
)
def test_search(house: House, query: str, found: int) -> None:
    house.catch()
    house.catch(b'Subject: other\r\n\r\nsaid "hi"', "bob@example.com")
    assert house.now("/api/messages", query=query).json["matching"] == found


def test_message_whole(house: House) -> None:
    name = house.catch(
        LETTER,
        "alice@example.com",
        "audit@example.org",
        parameters={"SIZE": "9"},
        recipient_parameters=({}, {"NOTIFY": "NEVER"}),
        user="shop",
        tls="TLSv1.3 X",
    )
    message = house.now(f"/api/messages/{name}").json
    assert message["envelope"] == {
        "sender": "bounce@example.org",
        "parameters": {"SIZE": "9"},
        "recipients": [
            {"address": "alice@example.com", "is_bcc": False, "parameters": {}},
            {"address": "audit@example.org", "is_bcc": True, "parameters": {"NOTIFY": "NEVER"}},
        ],
    }
    assert message["headers"][2] == {"name": "Subject", "value": "Your order"}
    assert message["text"].strip() == "It is on its way."
    assert message["has_remote"]
    assert [(part["type"], part["name"], part["is_body"]) for part in message["parts"]] == [
        ("text/plain", "", True),
        ("text/html", "", True),
        ("image/png", "", False),
        ("text/html", "../evil.html", False),
    ]
    assert message["remarks"] == []
    assert (message["user"], message["tls"]) == ("shop", "TLSv1.3 X")


def test_remarks_on_what_others_would_refuse(house: House) -> None:
    bad = house.catch("Subject: ü\r\nSubject: b\nBcc: x\r\n\r\n".encode() + b"\xff" + b"a" * 1000)
    assert len(house.now(f"/api/messages/{bad}").json["remarks"]) == 9
    declared = house.catch(LETTER + b"\xff", parameters={"BODY": "8BITMIME"})
    assert house.now(f"/api/messages/{declared}").json["remarks"] == []


def test_raw_and_download(house: House) -> None:
    name = house.catch(LETTER + b"\xff")
    raw = house.now(f"/api/messages/{name}/raw")
    assert raw.headers["content-type"] == "text/plain; charset=utf-8"
    assert raw.headers["x-octets"] == str(len(LETTER) + 1)
    assert raw.body == LETTER + "\ufffd".encode()
    saved = house.now(f"/api/messages/{name}/raw", download="")
    assert saved.body == LETTER + b"\xff"
    assert saved.headers["content-disposition"] == f'attachment; filename="{name}.eml"'
    assert "sandbox" in saved.headers["content-security-policy"]


def test_html_is_a_document_in_which_nothing_runs(house: House) -> None:
    name = house.catch()
    answer = house.now(f"/api/messages/{name}/html")
    assert answer.body.startswith(b'<!doctype html><base target="_blank"><p>Way<img src="data:image/png;base64,UE5H"')
    assert b"cid:none" in answer.body
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "script-src" not in policy
    assert policy.endswith("sandbox allow-popups allow-popups-to-escape-sandbox")
    remote = house.now(f"/api/messages/{name}/html", remote=1).headers["content-security-policy"]
    assert "img-src data: https: http:" in remote
    assert house.now(f"/api/messages/{house.catch(b'x')}/html").body == b'<base target="_blank">'


def test_part_is_a_harmless_download(house: House) -> None:
    name = house.catch()
    picture = house.now(f"/api/messages/{name}/parts/2")
    assert (picture.body, picture.headers["content-type"]) == (b"PNG", "image/png")
    evil = house.now(f"/api/messages/{name}/parts/3")
    assert evil.headers["content-type"] == "application/octet-stream"
    assert evil.headers["content-disposition"] == "attachment; filename=\"_evil.html\"; filename*=UTF-8''_evil.html"
    assert house.now(f"/api/messages/{name}/parts/4").status == 404


@pytest.mark.parametrize(
    ("name", "saved_as"),
    [
        ("a.pdf", "a.pdf"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("C:\\x y\\z", "C_x_y_z"),
        ("\u202egpj.exe", "gpj.exe"),
        ('a"; b="c\r\nX: y', "a_;_b=_cX_y"),
        ("...", "part-7"),
        ("", "part-7"),
        ("x" * 300 + ".txt", "x" * 96 + ".txt"),
    ],
)
def test_names_of_files(name: str, saved_as: str) -> None:
    assert disposition_of(Part(7, "a/b", name, "", False, b"")).startswith(f'attachment; filename="{saved_as}"; ')


def test_name_beyond_ascii() -> None:
    said = disposition_of(Part(7, "a/b", "März.pdf", "", False, b""))
    assert said == "attachment; filename=\"M_rz.pdf\"; filename*=UTF-8''M%C3%A4rz.pdf"


def test_deleting(house: House) -> None:
    first, second = house.catch(), house.catch()
    assert house.now(f"/api/messages/{first}", "DELETE").status == 204
    assert house.now(f"/api/messages/{first}", "DELETE").status == 404
    assert house.now(f"/api/messages/{first}").json == {"error": "there is no such message"}
    assert house.now(f"/api/messages/{second}").status == 200
    assert house.now("/api/messages", "DELETE").status == 204
    assert house.now("/api/messages").json["total"] == 0


def test_waiting_finds_what_is_there(house: House) -> None:
    house.catch()
    second = house.catch(b"Subject: Second one\r\n\r\n")
    assert house.now("/api/wait", subject="second ONE").json["id"] == second
    wanted: dict[str, Any] = {"from": "shop", "to": "alice"}
    assert house.now("/api/wait", query="order", **wanted).json["id"] == "M1"
    assert house.now("/api/wait", after="M1").json["id"] == second


def test_waiting_for_what_comes(house: House) -> None:
    async def main() -> None:
        waiting = asyncio.create_task(house.ask("/api/wait", to="bob", timeout=10))
        await asyncio.sleep(0.01)
        house.catch()
        await asyncio.sleep(0.01)
        house.catch(LETTER, "bob@example.com")
        assert (await waiting).json["id"] == "M2"

    run(main)


def test_waiting_in_vain(house: House) -> None:
    answer = house.now("/api/wait", to="bob", timeout=0.02)
    assert (answer.status, answer.json) == (404, {"error": "no such message came within 0.02 s"})


@pytest.mark.parametrize(
    ("name", "value"), [("timeout", "soon"), ("timeout", "nan"), ("timeout", "999"), ("timeout", "-1")]
)
def test_number_that_is_none(house: House, name: str, value: str) -> None:
    wanted: dict[str, Any] = {name: value}
    answer = house.now("/api/wait", **wanted)
    assert (answer.status, answer.json) == (400, {"error": "timeout is a number from 0 to 300"})


def test_failures_are_listed_and_changed(house: House) -> None:
    assert house.now("/api/failures").json == []
    put = house.now("/api/failures", "PUT", b'["rcpt=451:0.1"]')
    assert put.json == [
        {
            "failure": "rcpt=451:0.1",
            "stage": "rcpt",
            "action": 451,
            "probability": 0.1,
            "times": 0,
            "address": "",
            "hits": 0,
        }
    ]
    house.now("/api/failures", "POST", b'["message=drop"]')
    assert [one.failure for one in house.failures.chosen] == [parse("rcpt=451:0.1"), parse("message=drop")]
    house.now("/api/failures", "PUT", b'["helo=550"]')
    assert [str(one.failure) for one in house.failures.chosen] == ["helo=550"]
    assert house.now("/api/failures", "DELETE").json == []


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "this wants JSON"),
        (b"[" * 100_000, "this is nested too deep"),
        (b"{}", "this wants a list of failures"),
        (b"[1]", "this wants a list of failures"),
        (b'["rcpt=200"]', "a failure is a reply code from 400 to 599"),
    ],
)
def test_failures_with_a_mistake_change_nothing(house: House, body: bytes, why: str) -> None:
    house.failures.add(parse("helo=550"))
    answer = house.now("/api/failures", "PUT", body)
    assert answer.status == 400
    assert answer.json["error"].startswith(why)
    assert len(house.failures.chosen) == 1


def test_server_tells_where_it_is(house: House) -> None:
    assert house.now("/api/server").json["smtp"] == ["127.0.0.1:1025"]


def test_page_and_its_files(house: House) -> None:
    page = house.now("/")
    assert page.headers["content-security-policy"].endswith("; frame-src 'self'")
    wanted = re.findall(rb'(?:href|src)="(page/[^"]+)"', page.body)
    assert len(wanted) == 3
    for path in wanted:
        assert house.now(f"/{path.decode()}").status == 200
    assert house.now("/page/../api.py").status == 404


def test_nothing_of_the_page_comes_from_elsewhere_or_is_markup_of_strangers(house: House) -> None:
    for name in ("inbox.js", "api.js", "list.js", "reader.js", "failures.js", "words.js", "inbox.css"):
        text = house.now(f"/page/{name}").body.decode()
        assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


def test_live_events(house: House) -> None:
    async def main() -> None:
        sent: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()

        async def receive() -> MutableMapping[str, Any]:
            await asyncio.sleep(60)
            return {"type": "http.disconnect"}

        page = asyncio.create_task(house.app(scope_of("/api/events"), receive, sent.put))
        assert (await sent.get())["status"] == 200
        name = house.catch()
        house.inbox.clear()
        assert (await sent.get())["body"] == b'event: caught\ndata: {"id":"%b"}\n\n' % name.encode()
        assert (await sent.get())["body"] == b'event: deleted\ndata: {"id":null}\n\n'
        house.app.events.close()
        await page

    run(main)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=[*HOSTILE])
def test_no_message_makes_an_answer_fail(house: House, text: str) -> None:
    name = house.catch(text.encode("utf-8", "surrogateescape"))

    async def main() -> None:
        assert (await house.ask("/api/messages", query="x")).status == 200
        message = await house.ask(f"/api/messages/{name}")
        assert message.status == 200
        for part in message.json["parts"]:
            assert (await house.ask(f"/api/messages/{name}/parts/{part['number']}")).status == 200
        for view in ("raw", "html"):
            assert (await house.ask(f"/api/messages/{name}/{view}")).status == 200

    run(main)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=12), max_size=40))
def test_no_octets_make_an_answer_fail(pieces: list[bytes]) -> None:
    house = House()
    name = house.catch(b"".join(pieces))

    async def main() -> None:
        for path in ("", "/raw", "/html", "/parts/0"):
            assert (await house.ask(f"/api/messages/{name}{path}")).status in (200, 404)
        assert (await house.ask("/api/messages", query="subject:x y has:attachment")).status == 200

    run(main)
