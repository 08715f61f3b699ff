"""The page of `smtpmaild dev` in a real Chromium: live, by keyboard, on a phone, and with messages that mean harm."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from email.message import EmailMessage
from typing import Self

import pytest
from browser import ENTER, ESCAPE, Browser
from receiving import RecordingLog

from smtpmaild.dev.api import Api
from smtpmaild.dev.catcher import Catcher, Settings
from smtpmaild.dev.inbox import Inbox
from smtpmaild.server.sockets import TcpAddress
from smtpmaild.web.guard import Guard
from smtpmaild.web.serving import WebServer

pytestmark = pytest.mark.debian

DELETE = "\ue017"


class Served:
    """A catcher and its page, in a loop of their own."""

    def __init__(self) -> None:
        self.inbox = Inbox()
        self.log = RecordingLog()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.catcher = Catcher(Settings(), self.inbox, self.log)
        await self.catcher.start()
        api = Api(self.inbox, self.catcher.failures, self.catcher.addresses)
        web = WebServer(Guard(api), TcpAddress("127.0.0.1", 0), self.log, streams=[api.events])
        web.start(self._loop)
        (self.url,) = web.urls
        self._ready.set()
        await self._stop.wait()
        await web.stop()
        await self.catcher.stop()

    def send(self, message: bytes | EmailMessage, *recipients: str, sender: str = "shop@example.org") -> str:
        """Send it by SMTP; its id."""
        raw = message if isinstance(message, bytes) else message.as_bytes()
        with smtplib.SMTP("127.0.0.1", self.catcher.port, timeout=10) as client:
            client.sendmail(sender, recipients or ["alice@example.com"], raw)
        return self.inbox.messages[-1].id


@pytest.fixture(scope="module")
def everything() -> Iterator[Served]:
    with ExitStack() as stack:
        yield stack.enter_context(Served())


@pytest.fixture
def served(everything: Served) -> Iterator[Served]:
    everything._loop.call_soon_threadsafe(everything.inbox.clear)
    everything.catcher.failures.replace(())
    yield everything
    assert [event for event, _ in everything.log.facts if "failed" in event] == []


def plain(subject: str, text: str = "text") -> bytes:
    return f"From: Shop <shop@example.org>\r\nTo: alice@example.com\r\nSubject: {subject}\r\n\r\n{text}\r\n".encode()


def show(browser: Browser, served: Served, name: str = "", width: int = 1280) -> None:
    browser.look(width, 800)
    # Another address each time: of two that differ behind the # only, a browser loads the second not anew.
    browser.open(f"{served.url}?{time.monotonic_ns()}#{name}")
    browser.until(lambda: browser.count("#live.on"), "the page to be live")
    if name:
        browser.until(lambda: browser.count(".tabs"), "the message")


def subjects(browser: Browser) -> list[str]:
    found = browser.script("return [...document.querySelectorAll('#messages .subject')].map(one => one.textContent)")
    return [str(one) for one in found]


def shown(browser: Browser) -> str:
    return str(browser.script("return document.querySelector('#messages [aria-current] .subject')?.textContent ?? ''"))


def test_list_is_live_and_searched(browser: Browser, served: Served) -> None:
    show(browser, served)
    browser.until_text("#empty", f"127.0.0.1:{served.catcher.port}")
    served.send(plain("First"))
    browser.until(lambda: subjects(browser) == ["First"])
    served.send(plain("Second", "with a needle"))
    browser.until(lambda: subjects(browser) == ["Second", "First"])
    assert browser.text("#count") == "2 messages"
    assert browser.count("#messages .unread") == 2
    assert browser.script("return document.title") == "(2) Inbox - smtpmaild"

    browser.keys("/", *"needle")
    browser.until(lambda: subjects(browser) == ["Second"])
    assert browser.text("#count") == "1 of 2 messages"
    browser.keys(*"less")
    browser.until_text("#empty", "Nothing found")
    assert browser.console() == []


def test_keyboard_walks_reads_and_deletes(browser: Browser, served: Served) -> None:
    for subject in ("One", "Two", "Three"):
        served.send(plain(subject))
    show(browser, served)
    browser.until(lambda: len(subjects(browser)) == 3)
    for key, wanted in (("j", "Three"), ("j", "Two"), ("j", "One"), ("j", "One"), ("k", "Two")):
        browser.keys(key)
        browser.until(lambda wanted=wanted: shown(browser) == wanted, f"{key} to lead to {wanted}")  # type: ignore[misc]
    browser.until_text(".reader h2", "Two")
    browser.keys(ENTER)
    assert browser.script("return document.activeElement.id") == "reader"
    browser.keys(DELETE)
    browser.until(lambda: subjects(browser) == ["Three", "One"])
    browser.until(lambda: shown(browser) == "One")
    browser.keys(ESCAPE)
    browser.until(lambda: shown(browser) == "")
    browser.click("#clear")
    browser.until(lambda: browser.count("dialog[open]"))
    browser.click("#ask button.danger")
    browser.until_text("#empty", "No mail yet")
    assert browser.console() == []


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\x24\x69\x5b" * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Tracker:
    """A picture elsewhere, which counts who asks for it."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/pixel.png"
        self.asked = 0
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client:
                if client.recv(4096):
                    self.asked += 1
                    client.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: image/png\r\n\r\n" + png(1, 1))

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def tracker() -> Iterator[Tracker]:
    one = Tracker()
    yield one
    one.close()


def test_html_has_its_own_pictures_and_others_by_leave(browser: Browser, served: Served, tracker: Tracker) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "shop@example.org", "alice@example.com", "Pictures"
    message.set_content("plain words\n")
    message.add_alternative(f'<img id=own src="cid:logo"><img src="{tracker.url}">', subtype="html")
    *_, html = message.walk()
    assert isinstance(html, EmailMessage)
    html.add_related(png(37, 11), "image", "png", cid="<logo>", filename="logo.png")
    name = served.send(message, "alice@example.com", "audit@example.org")
    show(browser, served, name)

    browser.until(lambda: browser.count("iframe"))
    with browser.within("iframe"):
        browser.until(lambda: browser.script("return document.querySelector('#own')?.naturalWidth") == 37)
    assert tracker.asked == 0
    assert "audit@example.org Bcc" in browser.text(".facts").replace("\n", " ")
    assert "alice@example.com Bcc" not in browser.text(".facts")
    assert browser.text(".files").startswith("logo.png")
    browser.click(".notice button")
    browser.until(lambda: tracker.asked == 1, "the picture to be asked for")

    for tab, wanted in (("text", "plain words"), ("headers", "MIME-Version"), ("raw", "Subject: Pictures")):
        browser.click(f"[data-name={tab}]")
        browser.until_text("#view", wanted)
    browser.click("[data-name=envelope]")
    browser.until_text("#view", "RCPT TO (Bcc)\t<audit@example.org>")


SCRIPT = "parent.document.title='owned'; top.document.title='owned'; document.body.textContent='owned'"
HOSTILE = (
    b"From: <script>" + SCRIPT.encode() + b"</script> <evil@example.net>\r\n"
    b'To: "><img src=x onerror="document.title=\'owned\'"> <v@example.com>\r\n'
    b"Subject: <script>document.title='owned'</script>\r\n"
    b" =?utf-8?b?4oCu?= <img src=x onerror=document.title='owned'>\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n"
    b"--x\r\nContent-Type: text/html; charset=nonsense\r\n\r\n"
    b"<p id=p>still here</p><script>" + SCRIPT.encode() + b"</script>"
    b'<img src=x onerror="' + SCRIPT.encode() + b'"><svg onload="' + SCRIPT.encode() + b'"></svg>'
    b'<meta http-equiv=refresh content="0;url=TRACKER"><iframe src="TRACKER"></iframe><object data="TRACKER"></object>'
    b'<link rel=stylesheet href="TRACKER"><style>@import url(TRACKER); p { background: url(TRACKER) }</style>'
    b'<form action="TRACKER"><input autofocus name=a><button id=go>go</button></form>'
    b'<a id=link href="javascript:' + SCRIPT.encode() + b'">x</a><base href="TRACKER">\r\n'
    b'--x\r\nContent-Type: text/html\r\nContent-Disposition: attachment; filename="<img src=x onerror=alert(1)>'
    b'\xe2\x80\xaegpj.exe"\r\n\r\n<script>1</script>\r\n--x--\r\n'
)


def test_message_that_means_harm_does_none(browser: Browser, served: Served, tracker: Tracker) -> None:
    name = served.send(HOSTILE.replace(b"TRACKER", tracker.url.encode()), sender="evil@example.net")
    show(browser, served, name)
    browser.until(lambda: browser.count("iframe"))
    with browser.within("iframe"):
        browser.until(lambda: browser.text("#p") == "still here")
        browser.click("#go")
        browser.click("#link")
        assert browser.script("return document.domain") == ""  # an origin of its own
    for tab in ("headers", "envelope", "raw", "html"):
        browser.click(f"[data-name={tab}]")
        browser.until(lambda: browser.count("#view > *"))
    assert browser.script("return document.title") == "Inbox - smtpmaild"
    assert tracker.asked == 0
    assert browser.text(".reader h2").startswith("<script>document.title='owned'</script> U+202E <img src=x")
    assert "<img src=x onerror=alert(1)>U+202Egpj.exe" in browser.text(".files")
    assert browser.script("return document.querySelectorAll('main img, main script, main svg').length") == 0


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"Subject: " + b"long " * 100_000 + b"\r\nX-Big: " + b"a" * 1_000_000 + b"\r\n\r\nx\r\n", "long long"),
        (b"Content-Type: multipart/mixed; boundary=\r\n\r\n--\r\n", "(no subject)"),
    ],
    ids=["header of a megabyte", "broken"],
)
def test_message_out_of_all_proportion_is_shown(browser: Browser, served: Served, raw: bytes, words: str) -> None:
    show(browser, served, served.send(raw))
    assert browser.text(".reader h2").startswith(words)
    for tab in ("headers", "raw"):
        browser.click(f"[data-name={tab}]")
        browser.until(lambda: browser.count("#view > *"))
    assert not browser.script("return document.documentElement.scrollWidth > innerWidth")
    assert browser.console() == []


def test_on_a_phone(browser: Browser, served: Served) -> None:
    served.send(plain("A subject that is longer than any phone is wide, whatever way somebody may hold it in his hand"))
    show(browser, served, width=380)
    browser.until(lambda: subjects(browser))
    for _ in range(2):
        assert not browser.script("return document.documentElement.scrollWidth > innerWidth")
        assert not browser.script("return document.querySelector('.reader').checkVisibility()")
        browser.click("#messages a")
        browser.until(lambda: browser.count(".tabs"))
        assert browser.script("return document.querySelector('.reader').checkVisibility()")
        assert not browser.script("return document.querySelector('.list').checkVisibility()")
        assert not browser.script("return document.documentElement.scrollWidth > innerWidth")
        browser.click(".back")
    browser.click("#messages a")
    browser.until(lambda: browser.count(".tabs"))
    browser.click(".delete")
    browser.until_text("#empty", "No mail yet")


def test_failures_are_chosen_in_the_page(browser: Browser, served: Served) -> None:
    show(browser, served)
    browser.click("#show-failures")
    browser.keys(*"rcpt=99", ENTER)
    browser.until_text("#failure-error", "from 400 to 599")
    browser.script("document.querySelector('#failure').value = ''")
    browser.keys(*"rcpt=451", ENTER)
    browser.until_text("#failure-list", "rcpt=451")
    with pytest.raises(smtplib.SMTPRecipientsRefused, match="451"):
        served.send(plain("x"))
    browser.click("#no-failures")
    browser.until(lambda: browser.text("#failure-list") == "")
    assert not served.catcher.failures.chosen


def test_page_comes_back_with_the_server(browser: Browser) -> None:
    with Served() as alone:
        show(browser, alone)
    browser.until_text("#live", "connection lost")
