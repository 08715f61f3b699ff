"""A server in a thread of its own, with an event loop of its own: for tests, which may be asynchronous or not."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, overload

from smtpmaild.dev.catcher import Catcher, Settings
from smtpmaild.dev.caught import Caught
from smtpmaild.dev.failures import Chosen, Failure, parse
from smtpmaild.dev.inbox import Bounds, Inbox
from smtpmaild.embedding.options import StandardLog

Predicate = Callable[[Caught], object]


class CatchAll:
    """A mail server that takes everything: `with CatchAll() as server:`.

    Keywords are those of `Settings`: port, hostname, tls, auth, accounts, ... Between start() and stop() it may be
    used from any thread.
    """

    def __init__(self, *, bounds: Bounds | None = None, **settings: Any) -> None:
        self.inbox = Inbox(bounds)
        self._settings = Settings(**settings)
        self._catcher: Catcher | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    # Its life

    def start(self) -> Self:
        """Listen; when it returns, clients may connect. Raises SocketError, TlsError."""
        self._thread = threading.Thread(target=self._run, name="smtpmaild", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self

    def stop(self) -> None:
        """Close all connections and end the thread; the messages stay."""
        if self._thread is not None and self._thread.is_alive():
            assert self._loop is not None and self._stop is not None, "start() waits for them"
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
            if self._error is not None:
                raise self._error

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            # Not asyncio.run(): it asks the policy of the process for a loop, which may be that of a test framework.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        catcher = Catcher(self._settings, self.inbox, StandardLog())
        await catcher.start()
        self._catcher = catcher
        self._started.set()
        try:
            await self._stop.wait()
        finally:
            await catcher.stop()

    # Where it is

    @property
    def _running(self) -> Catcher:
        if self._catcher is None:
            raise RuntimeError("the server was not started")
        return self._catcher

    @property
    def host(self) -> str:
        """The host to connect to."""
        return self._settings.host

    @property
    def port(self) -> int:
        """The port to connect to."""
        return self._running.port

    def client_context(self) -> ssl.SSLContext:
        """For clients: trusts the certificate of this server, and no other. Connect to "localhost" to have its name
        checked."""
        from smtpmaild.tls import self_signed

        context = ssl.create_default_context(cadata=self_signed.make(self._settings.hostname).decode())
        context.check_hostname = False
        return context

    # What it has caught

    @property
    def messages(self) -> list[Caught]:
        """All messages that were accepted, oldest first."""
        return self.inbox.messages

    def clear(self) -> None:
        """Forget all messages and all failures."""
        self.inbox.clear()
        self._running.failures.replace(())

    @overload
    def wait_for(self, what: int = 1, timeout: float = 5.0) -> list[Caught]: ...
    @overload
    def wait_for(self, what: Predicate, timeout: float = 5.0) -> Caught: ...

    def wait_for(self, what: int | Predicate = 1, timeout: float = 5.0) -> list[Caught] | Caught:
        """Block until there are so many messages, and return all; or until one is what the function looks for, and
        return that one. Raises TimeoutError, whose text lists what is there.

        In a test that is a coroutine, await wait_for_async(): the client may need the loop that would be blocked.
        """
        if isinstance(what, int):
            if self.inbox.wait(lambda messages: len(messages) >= what, timeout):
                return self.messages
            raise TimeoutError(self._report(f"{what} message{'s' if what != 1 else ''}", timeout))
        found: list[Caught] = []

        def look(messages: Sequence[Caught]) -> bool:
            found.extend([message for message in messages if what(message)][:1])
            return bool(found)

        if self.inbox.wait(look, timeout):
            return found[0]
        raise TimeoutError(self._report("a message that matches", timeout))

    @overload
    async def wait_for_async(self, what: int = 1, timeout: float = 5.0) -> list[Caught]: ...
    @overload
    async def wait_for_async(self, what: Predicate, timeout: float = 5.0) -> Caught: ...

    async def wait_for_async(self, what: int | Predicate = 1, timeout: float = 5.0) -> list[Caught] | Caught:
        """wait_for(), while the loop goes on."""
        return await asyncio.to_thread(self.wait_for, what, timeout)

    def _report(self, wanted: str, timeout: float) -> str:
        messages = self.messages
        lines = [f"waited {timeout:g} s for {wanted}; there {'is' if len(messages) == 1 else 'are'} {len(messages)}:"]
        return "\n  ".join([*lines, *map(repr, messages[-10:])])

    # What it does wrong, by order

    @property
    def failures(self) -> Sequence[Chosen]:
        """Those in force; each counts in `hits` how often it happened."""
        return self._running.failures.chosen

    def fail(self, stage: str, action: int | str | None = None, **conditions: Any) -> Chosen:
        """Let something fail: `fail("rcpt", 451)`, or as `smtpmaild dev --fail` has it, `fail("rcpt=451:0.1")`.

        Keywords are those of `Failure`: probability, times, address, text. What is returned counts how often it
        happened. Raises ValueError for what cannot be.
        """
        failure = parse(stage) if action is None else Failure(stage, action, **conditions)
        return self._running.failures.add(failure)
