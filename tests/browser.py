"""A real browser for tests: Debian's chromium, steered by its chromedriver over the W3C WebDriver protocol.

By hand, for it is little: a page, elements by CSS selector, keys, scripts, pictures. One browser serves all tests of a
process; each gets a page without cookies, storage or a cache of the one before. It talks to loopback only.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

PATIENCE = 15.0
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # W3C WebDriver §11
_ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--hide-scrollbars", "--force-prefers-reduced-motion", "--proxy-server=direct://"),
)
#: Keys that are no characters, as WebDriver has them.
TAB, ENTER, ESCAPE, SPACE = "\ue004", "\ue007", "\ue00c", "\ue00d"


class BrowserError(Exception):
    """What chromedriver complains of."""


class Browser:
    """One page in one browser."""

    def __init__(self, driver: str, chromium: str, profile: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._base = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [driver, f"--port={port}", "--allowed-ips=127.0.0.1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._session = ""
        self._until_there()
        options = {"binary": chromium, "args": [*_ARGUMENTS, f"--user-data-dir={profile}"]}
        wanted = {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}
        self._session = f"/session/{self._ask('POST', '/session', {'capabilities': wanted})['sessionId']}"

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(BrowserError, OSError):
            self._ask("DELETE", "", {})
        self._process.terminate()
        self._process.wait(PATIENCE)

    # A page

    def open(self, url: str) -> None:
        """Go there, with nothing kept from before."""
        self.cdp("Network.clearBrowserCache")
        self.cdp("Storage.clearDataForOrigin", origin="*", storageTypes="all")
        self._ask("POST", "/url", {"url": url})
        self.script("sessionStorage.clear()")
        self.console()

    def look(self, width: int, height: int, scheme: str = "light") -> None:
        """The size of the window, and the colours that its user likes."""
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def script(self, code: str, *arguments: Any) -> Any:
        """Run this; what it returns."""
        return self._ask("POST", "/execute/sync", {"script": code, "args": [*arguments]})

    def text(self, selector: str) -> str:
        """What somebody reads there; "" where there is no such element."""
        return str(self.script("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def count(self, selector: str) -> int:
        """How many there are."""
        return int(self.script("return document.querySelectorAll(arguments[0]).length", selector))

    def click(self, selector: str) -> None:
        """Click the first one; again where a live page has just put another in its place."""
        for last in (False, False, True):
            found = self._ask("POST", "/element", {"using": "css selector", "value": selector})[_ELEMENT]
            try:
                self._ask("POST", f"/element/{found}/click", {})
                return
            except BrowserError as error:
                if last or "stale element" not in str(error):
                    raise

    @contextlib.contextmanager
    def within(self, selector: str) -> Iterator[None]:
        """Look at the document of a frame, until the block ends."""
        found = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        self._ask("POST", "/frame", {"id": found})
        try:
            yield
        finally:
            self._ask("POST", "/frame", {"id": None})

    def keys(self, *keys: str) -> None:
        """Press these, wherever the focus is."""
        pressed = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": pressed}]})

    def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Wait for it."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"it never came: {what or condition}"
            time.sleep(0.02)

    def until_text(self, selector: str, wanted: str) -> None:
        """Wait until somebody reads this there."""
        self.until(lambda: wanted in self.text(selector), f"{wanted!r} in {selector}")

    def picture(self, path: Path) -> None:
        """The whole window as PNG."""
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot", None)))

    def console(self) -> Sequence[str]:
        """What the page complained of since the last call, violations of its Content-Security-Policy among it."""
        return [entry["message"] for entry in self._ask("POST", "/se/log", {"type": "browser"})]

    def cdp(self, command: str, **parameters: Any) -> Any:
        """Chromium's own protocol, for what WebDriver has no word for."""
        return self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    # The protocol

    def _until_there(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._ask("GET", "/status", None)
                return
            except OSError:
                assert time.monotonic() < deadline, "chromedriver does not answer"
                time.sleep(0.02)

    def _ask(self, method: str, path: str, body: Any) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._base}{self._session}{path}", data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                value = json.load(error)["value"]
            raise BrowserError(f"{value['error']}: {value['message']}") from None


@contextlib.contextmanager
def browsing(driver: str, chromium: str) -> Iterator[Browser]:
    """A browser, until the block ends."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(driver, chromium, profile)
        try:
            yield browser
        finally:
            browser.close()
