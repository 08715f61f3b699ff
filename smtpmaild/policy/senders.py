"""Refuses a reverse-path that is not the user's who has signed in (RFC 6409 §6.1: 553 5.7.1).

Who has not signed in is not asked: sender addresses of strangers prove nothing. A user may send as

- himself: the reverse-path is the name he signs in with,
- every local address whose mail reaches him, be it by an alias, a sub-address or the catch-all: a user alice@a.example
  has the mailbox alice of a.example, a user alice the mailboxes of that name in all local domains,
- what the configuration lists for him, or under "*" for everybody: an address, a domain, "*.a.example" for its
  sub-domains, an address with "*" for any characters in the local part, or "*" alone for any sender,
- the null sender: the disposition notifications of mail programs have it (RFC 8098 §3).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Protocol

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool

from smtpmaild.envelope import Transaction
from smtpmaild.idn import to_ascii
from smtpmaild.policy import Mode, Policy, Verdict
from smtpmaild.policy.options import PolicyOptions
from smtpmaild.routing.names import fold
from smtpmaild.smtp.address import Address, is_domain, normal_domain, parse_mailbox
from smtpmaild.smtp.reply import Reply

REFUSED = Reply(553, "5.7.1", "Sender address rejected: not owned by the user who has signed in")
#: The key and the pattern for everybody and everything.
EVERY = "*"


def _sender_pattern(text: str) -> str:
    """An address or a domain, each with wildcards; folded, the domain in A-labels. Raises ValueError."""
    local_part, at, domain = text.rpartition("@")
    wildcard, name = ("*.", domain[2:]) if domain.startswith("*.") else ("", domain)
    if text == EVERY:
        return text
    if at:
        parsed = parse_mailbox(f"{local_part}@{name}", to_ascii)
        if parsed is not None:
            return f"{fold(parsed.local_part)}@{wildcard}{parsed.domain}"
    elif is_domain(name) and (normal := normal_domain(name, to_ascii)) is not None:
        return wildcard + normal
    raise ValueError(
        f"'{text}' is no sender: write alice@example.com, news-*@example.com, example.com, *.example.com or *"
    )


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _user(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("the name of a user is not empty and has no control characters")
    return fold(text)


SenderPatterns = Annotated[
    tuple[Annotated[str, AfterValidator(_sender_pattern)], ...],
    BeforeValidator(_one_or_more, json_schema_input_type=str | list[str]),
]


class SendersOptions(PolicyOptions):
    """Refuse a sender address that is not the user's who has signed in (553 5.7.1)."""

    mode: Mode = Field(
        Mode.OFF,
        description="enforce: its verdicts count. monitor: it only logs what it would have said. off: it is not asked. "
        "The role submission brings enforce.",
    )
    own: StrictBool = Field(
        True, description="A user may send as himself and as every local address whose mail reaches him."
    )
    null_sender: StrictBool = Field(
        True, description="A user may send with the null sender, as notifications of mail programs do."
    )
    users: dict[Annotated[str, AfterValidator(_user)], SenderPatterns] = Field(
        {},
        description="What else a user may send as, '*' for every user: addresses, domains, *.example.com for "
        "sub-domains, news-*@example.com for some addresses, * for any.",
        examples=[{"alice": ["alice@example.net", "example.org"], "newsletter": "news-*@example.com"}],
    )


class Directory(Protocol):
    """Who knows the local addresses: the routing."""

    def mailboxes_of(self, address: Address) -> Collection[tuple[str, str]]:
        """Where mail for this address ends: mailboxes with their domains; empty for addresses that are not local."""
        ...


class Senders(Policy):
    name = "senders"

    def __init__(self, options: SendersOptions, directory: Directory) -> None:
        self._directory = directory
        self._own = options.own
        self._null_sender = options.null_sender
        everybody = options.users.get(EVERY, ())
        self._others = _any_of(everybody)
        self._of_user: Mapping[str, re.Pattern[str]] = {
            user: _any_of((*patterns, *everybody)) for user, patterns in options.users.items() if user != EVERY
        }

    def mail(self, transaction: Transaction) -> Verdict:
        user = transaction.session.user
        if not user or self._is_allowed(fold(user), transaction.envelope.reverse_path):
            return None
        return REFUSED

    def _is_allowed(self, user: str, sender: Address) -> bool:
        if sender.is_null:
            return self._null_sender
        address = f"{fold(sender.local_part)}@{sender.domain}"
        if self._own and self._is_own(user, sender, address):
            return True
        return self._of_user.get(user, self._others).fullmatch(address) is not None

    def _is_own(self, user: str, sender: Address, address: str) -> bool:
        if address == user:
            return True
        name, at, domain = user.rpartition("@")
        mailboxes = self._directory.mailboxes_of(sender)
        return (name, domain) in mailboxes if at else any(mailbox == user for mailbox, _ in mailboxes)


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(_expression, patterns)) or r"(?!)", re.DOTALL)


def _expression(pattern: str) -> str:
    if pattern == EVERY:
        return ".*"
    local_part, _, domain = pattern.rpartition("@")
    wildcard, name = ("[^@]+\\.", domain[2:]) if domain.startswith("*.") else ("", domain)
    return f"{re.escape(local_part or EVERY).replace(re.escape(EVERY), '.*')}@{wildcard}{re.escape(name)}"
