"""The seam of stores: where an accepted message is made durable before its 250.

A sink is one entry of `deliver_to`. The receiver calls it in the event loop's thread; anything that touches the disk
happens in the sink's writer threads, and answers come back through the `post` function given at start.

The Maildir as example. `unhealthy()` looks at a flag: the last commit said ENOSPC, so DATA is answered 452 without
reading a byte. `begin()` makes an object and no file. `write()` collects up to a threshold; what is larger goes to
the writer in blocks, and False says "enough for now, I call drained() when you may go on". `commit()` hands the job
to the writer, which creates in tmp/, writes, syncs, renames into new/, syncs new/, and only then posts `done(250)`.
A crash between any two of these steps leaves at most a file in tmp/, which nobody reads and the next start sweeps.

Adding one: a file here with the class, its `Options` in options.py (a pydantic model, what the YAML accepts under
`deliver_to` for its `type`), and one line in the BUILTIN table in builtin.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from smtpmaild.envelope import Destination, Envelope
from smtpmaild.smtp.reply import Reply

#: One reply for all destinations of the delivery, or one for each in the order given to begin().
#: SMTP sends the worst of them, LMTP (envelope.is_lmtp) each: only there may one fail and leave the others stored.
Outcome = Reply | Sequence[Reply]
#: The route of mail that waits in the queue for one of our stores: this and the store's name.
STORE_ROUTE = "local/"
#: Runs a function soon in the event loop's thread; callable from any thread (loop.call_soon_threadsafe).
Post = Callable[[Callable[[], object]], object]


class Delivery(Protocol):
    """One message on its way into one sink. Exactly one of commit and abort ends it; neither may be called twice."""

    def write(self, chunk: bytes) -> bool:
        """Take the next bytes of the message: CRLF line ends, no dot-stuffing; the first ones are the Received field.

        False: stop reading from the peer until drained() was called. The bytes were taken all the same.
        """
        ...

    def commit(self, done: Callable[[Outcome], None]) -> None:
        """Make the message durable; then, and only then, call done() with a 2yz, in the loop's thread, once.

        A failure is done() with a 451 or 452, the cause in the log, and nothing left to be seen in the store.
        """
        ...

    def abort(self) -> None:
        """Forget the message and everything written of it."""
        ...


class Sink(Protocol):
    """A store of mail, named in the config under deliver_to."""

    def prepare(self) -> None:
        """Once at start, before any worker runs: check that the store can be written and sweep what a crash left.

        Raises OSError, with the path in it, when mail could not be stored.
        """
        ...

    def start(self, post: Post) -> None:
        """Once in each worker process, before the first message: threads begin here, never before a fork."""
        ...

    def stop(self) -> None:
        """Finish what was committed, end the threads. Blocks until that is done."""
        ...

    def unhealthy(self) -> Reply | None:
        """A 4yz to give instead of 354 while the store is known to be in trouble, else None. No I/O."""
        ...

    def begin(self, envelope: Envelope, destinations: Sequence[Destination], drained: Callable[[], None]) -> Delivery:
        """Start one message for the given destinations of this sink. No I/O. drained() comes in the loop's thread."""
        ...

    def locate(self, destination: Destination) -> str:
        """The path where mail for this destination would land, for people and `smtpmaild try`. No I/O."""
        ...
