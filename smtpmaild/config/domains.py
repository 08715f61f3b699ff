"""The section `local_domains`: whose mail is ours, and which mailbox it goes to.

How a local part is looked up, in this order, without regard to case: an alias, a mailbox, the part before the
sub-address separator in both ways, the catch-all. Where `mailboxes` is left out every local part is a mailbox.
`postmaster` is always accepted: where nothing of the domain takes it, the top-level `postmaster` address does, and
without that it becomes a mailbox of that name in the store of the domain.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from smtpmaild.config.names import AliasTarget, DomainPattern, MailboxName
from smtpmaild.config.section import AtLeastOne, Section


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str) else value


_SEPARATORS = "+-=_#~!"


def _separator(text: str) -> str:
    if len(text) != 1 or text not in _SEPARATORS:
        raise ValueError(f"the separator of sub-addresses is one of {' '.join(_SEPARATORS)}, mostly '+'")
    return text


AliasTargets = Annotated[
    AtLeastOne[AliasTarget],
    BeforeValidator(_one_or_more, json_schema_input_type=str | list[str]),
]


class LocalDomain(Section):
    """A domain we receive mail for."""

    deliver: str = Field(
        description="The store its mail goes to: a name under deliver_to; or one under relays, which takes it from the "
        "queue."
    )
    mailboxes: tuple[MailboxName, ...] | None = Field(
        None, description="The local parts there are. Left out: any local part.", examples=[["alice", "bob"]]
    )
    aliases: dict[MailboxName, AliasTargets] = Field(
        {},
        description="Other names: each leads to one or several mailboxes or aliases of this domain, or to addresses in "
        "local domains, with `relay` in any domain. An alias that names itself means the mailbox of that name.",
        examples=[{"sales": ["alice", "bob"], "info": "sales"}],
    )
    catch_all: AliasTarget | None = Field(
        None, description="Who gets mail for every other local part. Left out: it is refused (550 5.1.1)."
    )
    relay: str | None = Field(
        None,
        description="What takes on the mail of aliases that lead to addresses in other domains: a name under relays, "
        "mx, or host:port. Left out: such an alias is a mistake.",
        examples=["mx"],
    )
    subaddress: Annotated[str, AfterValidator(_separator)] | None = Field(
        None,
        json_schema_extra={"enum": [*_SEPARATORS]},
        description="The separator of sub-addresses: with '+', alice+lists goes to alice.",
        examples=["+"],
    )


LocalDomains = dict[DomainPattern, LocalDomain]
