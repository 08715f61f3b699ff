"""One message that was caught, with its envelope; it never changes.

`raw` is what the client sent, octet by octet: CRLF line ends, no dot-stuffing, no trace field of ours in front.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from functools import cached_property

from smtpmaild.dev.reading import Part, Reading, parsed
from smtpmaild.envelope import Envelope

_SEARCHED = frozenset(("from", "to", "cc", "reply-to", "subject", "message-id"))
#: Octets that are taken apart in a tenth of a second.
_SMALL = 4_000_000
_HAYSTACK = 50_000


@dataclass(frozen=True)
class Caught:
    """A message as a test or a person looks at it.

    id: unique, in the reply to the client too; sorts by time.  sender: the reverse-path, "" for `<>`.  recipients: of
    the envelope, in order.  parameters: those of MAIL.  recipient_parameters: those of each RCPT.  client, hello: who
    sent it, and what it calls itself.  protocol: as in Received (SMTP, ESMTPSA, ...).  tls: version and cipher, "" in
    clear text.  user: who signed in, "" for nobody.  received_at: seconds since the epoch.
    """

    id: str
    sender: str
    recipients: tuple[str, ...]
    raw: bytes
    received_at: float = 0.0
    parameters: Mapping[str, str] | None = None
    recipient_parameters: tuple[Mapping[str, str], ...] = ()
    client: str = ""
    hello: str = ""
    protocol: str = "ESMTP"
    tls: str = ""
    user: str = ""

    @classmethod
    def of(cls, envelope: Envelope, raw: bytes) -> Caught:
        """The message that came in this envelope."""
        return cls(
            id=envelope.queue_id,
            sender=envelope.reverse_path.text,
            recipients=tuple(one.address.text for one in envelope.recipients),
            raw=raw,
            received_at=envelope.received_at,
            parameters=dict(envelope.parameters),
            recipient_parameters=tuple(dict(one.parameters) for one in envelope.recipients),
            client=str(envelope.peer),
            hello=envelope.hello,
            protocol=envelope.protocol,
            tls=f"{envelope.tls.version} {envelope.tls.cipher}" if envelope.tls else "",
            user=envelope.user,
        )

    @cached_property
    def reading(self) -> Reading:
        """What is in it, as far as that can be told; raises nothing."""
        return Reading(self.raw)

    @cached_property
    def parsed(self) -> EmailMessage:
        """The message by the standard library's parser and its default policy."""
        return parsed(self.raw)

    @property
    def subject(self) -> str:
        """The Subject, decoded; "" if there is none."""
        return self.reading.subject

    @property
    def text(self) -> str:
        """The plain text; "" if there is none."""
        return self.reading.text

    @property
    def html(self) -> str:
        """The HTML; "" if there is none."""
        return self.reading.html

    @property
    def attachments(self) -> Sequence[Part]:
        """Files, and pictures of the HTML: each has name, type and content."""
        return self.reading.attachments

    @cached_property
    def attachment_count(self) -> int | None:
        """How many; None for a message so large that nobody should wait for the answer."""
        return len(self.attachments) if len(self.raw) <= _SMALL else None

    @cached_property
    def haystack(self) -> str:
        """What a search looks at: addresses, Subject and texts, in lower case; the beginning, where they are long."""
        reading = self.reading
        named = [value for name, value in reading.fields if name.lower() in _SEARCHED]
        return "\n".join([self.id, self.sender, *self.recipients, *named, reading.text, reading.html])[
            :_HAYSTACK
        ].lower()

    @cached_property
    def bcc(self) -> Sequence[str]:
        """Recipients of the envelope whom neither To nor Cc names: what others must not see."""
        reading = self.reading
        named = " ".join(value for name, value in reading.fields if name.lower() in ("to", "cc")).lower()
        return [one for one in self.recipients if one.lower() not in named]

    def __repr__(self) -> str:
        return f"<{self.id} from <{self.sender}> to {', '.join(self.recipients)}: {self.subject!r}>"
