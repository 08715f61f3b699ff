"""The built-in policies, in the order in which they are asked. A new one is a file in this room and a line here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from smtpmaild.policy import Mode, Policy
from smtpmaild.policy.early_talker import EarlyTalker, EarlyTalkerOptions
from smtpmaild.policy.helo_syntax import HeloSyntax, HeloSyntaxOptions
from smtpmaild.policy.mail_loop import MailLoop, MailLoopOptions
from smtpmaild.policy.messages_per_session import MessagesPerSession, MessagesPerSessionOptions
from smtpmaild.policy.options import PolicyOptions
from smtpmaild.policy.senders import Directory, Senders, SendersOptions
from smtpmaild.smtp.address import Address


@dataclass(frozen=True, slots=True)
class Builtin:
    """options: what the configuration accepts.  build: makes the policy of such options and the local addresses."""

    options: type[PolicyOptions]
    build: Callable[[Any, Directory], Policy]


#: The name under `policies`, in the log and in `try` -> how the policy is made.
BUILTIN: Mapping[str, Builtin] = MappingProxyType(
    {
        "early_talker": Builtin(EarlyTalkerOptions, lambda *_: EarlyTalker()),
        "helo_syntax": Builtin(HeloSyntaxOptions, lambda *_: HeloSyntax()),
        "senders": Builtin(SendersOptions, Senders),
        "messages_per_session": Builtin(MessagesPerSessionOptions, lambda options, _: MessagesPerSession(options)),
        "mail_loop": Builtin(MailLoopOptions, lambda options, _: MailLoop(options)),
    }
)


class NobodyIsLocal:
    """A directory without addresses, for whoever has no local domains."""

    def mailboxes_of(self, address: Address) -> Collection[tuple[str, str]]:
        return ()


def build_policies(
    options: Mapping[str, PolicyOptions], directory: Directory | None = None
) -> list[tuple[Policy, Mode]]:
    """Every built-in policy with its mode, for Chain.compile; where options are missing, with its defaults."""
    directory = directory or NobodyIsLocal()
    chosen = {name: options.get(name) or builtin.options() for name, builtin in BUILTIN.items()}
    return [(BUILTIN[name].build(chosen[name], directory), chosen[name].mode) for name in BUILTIN]
