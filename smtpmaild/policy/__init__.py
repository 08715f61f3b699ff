"""The seam of policies: what may be said at each step of the dialogue.

A policy is an object with the methods of the stages it cares for; the chain (chain.py) binds those methods once per
listener and asks them in the order of the config. The first verdict wins. A user's callback (embedding/) becomes
an entry of the same chain, so whatever a built-in policy can do, a callback can do as well.

Who calls, when, from where: the receiver, once per step, in the event loop's thread. A method therefore never
blocks; one that must wait (DNS, a database) is `async` or returns an awaitable, and only that session waits for it.
A method reads the session and the transaction and never changes them. An exception it raises is logged and answered
451 4.3.0: a broken policy neither loses mail nor lets it through.

Adding one: a file here with the class and its `Options` (a pydantic model, what the YAML accepts under
`policies: <name>:`), and one line in the BUILTIN table in builtin.py.
"""

from __future__ import annotations

from collections.abc import Awaitable
from enum import Enum

from smtpmaild.content import Content
from smtpmaild.envelope import Session, Transaction
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.reply import Reply

#: What a policy says. None: no opinion, ask the next one. A positive reply accepts and ends the asking.
Verdict = Reply | None
#: Synchronous wherever possible: only an awaitable costs a Task.
Answer = Verdict | Awaitable[Verdict]


class Mode(Enum):
    """How much a policy has to say."""

    ENFORCE = "enforce"
    MONITOR = "monitor"
    OFF = "off"


class Policy:
    """Override only the stages you need; the chain leaves out the rest.

    name: how the config and the log call it.  needs_body: `message` wants content.open(), not only content.header.
    """

    name: str = ""
    needs_body: bool = False

    def connect(self, session: Session) -> Answer:
        """Before the banner. A 5yz refuses the session (554, then only QUIT), a 421 closes it."""

    def helo(self, session: Session) -> Answer:
        """HELO or EHLO; session.hello is what the client calls itself."""

    def mail(self, transaction: Transaction) -> Answer:
        """MAIL; envelope.reverse_path and parameters are set, not yet accepted."""

    def rcpt(self, transaction: Transaction, forward_path: Address) -> Answer:
        """RCPT, before routing. A positive reply skips the other policies, never the routing."""

    def data(self, transaction: Transaction) -> Answer:
        """DATA or the first BDAT: at least one recipient was accepted, nothing of the message was read."""

    def part(self, transaction: Transaction, chunk: bytes) -> Answer:
        """A piece of the message, dot-stuffing removed, every byte exactly once. A refusal drains the rest."""

    def message(self, transaction: Transaction, content: Content) -> Answer:
        """The end of data, before anything is made durable."""
