"""A status page served beside the test, in a thread with a loop of its own, so that a browser can look at it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from browsing import LOOPBACK
from looking import Looked

from smtpmaild.web.serving import WebServer


class Served:
    """looked: touch it within run() only. url: of the page."""

    def __init__(self, looked: Looked) -> None:
        self.looked = looked
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._server = WebServer(looked.site.app, LOOPBACK, looked.log, streams=[looked.broadcast])
        self._thread = threading.Thread(target=self._loop.run_forever)

    def run(self, function: Callable[[], Any]) -> Any:
        """Call it in the thread of the loop; what it returns, or what its awaitable comes to."""

        async def call() -> Any:
            found = function()
            return await found if asyncio.iscoroutine(found) else found

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(20)

    def start(self) -> None:
        self._thread.start()
        self.run(lambda: self._server.start(self._loop))
        self.url = self._server.urls[0]

    def stop(self) -> None:
        self.run(self._server.stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


@contextmanager
def beside(looked: Looked) -> Iterator[Served]:
    """Serve it until the block ends."""
    served = Served(looked)
    served.start()
    try:
        yield served
    finally:
        served.stop()
