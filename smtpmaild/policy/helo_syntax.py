"""Refuses clients whose HELO or EHLO names neither a host nor an address (RFC 5321 §4.1.1.1).

Only the form is judged: whether the name exists, or is the client's, is not asked here (RFC 5321 §4.1.4 forbids to
refuse mail for that). Beyond the grammar we take what honest clients send:

- "_" in host names, and names beyond ASCII (`is_domain` knows both),
- a name without a dot, and an IPv4 address without brackets: printers, scanners, Windows; the grammar allows them,
- a dot at the end of the name: resolvers write it,
- an IPv6 literal without its tag, "[::1]": older mail libraries.
"""

from __future__ import annotations

from smtpmaild.envelope import Session
from smtpmaild.policy import Policy, Verdict
from smtpmaild.policy.options import PolicyOptions
from smtpmaild.smtp.address import is_domain, normal_literal
from smtpmaild.smtp.reply import Reply

# RFC 5321 §4.3.2 gives 501 to HELO and EHLO; RFC 2034 §4 wants no enhanced code in what answers them.
REFUSED = Reply(501, "", "HELO or EHLO needs a host name or an address in brackets")


class HeloSyntaxOptions(PolicyOptions):
    """Refuse clients that greet with something that is no host name and no address (501)."""


class HeloSyntax(Policy):
    name = "helo_syntax"

    def helo(self, session: Session) -> Verdict:
        return None if is_host(session.hello) else REFUSED


def is_host(hello: str) -> bool:
    """True for a host name or an address literal, as wide as the module says."""
    if hello[:1] == "[" and hello[-1:] == "]":
        return normal_literal(hello) is not None or normal_literal(f"[IPv6:{hello[1:]}") is not None
    return is_domain(hello.removesuffix("."))
