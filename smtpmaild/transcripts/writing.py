"""Writes the text of a transcript."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from smtpmaild.envelope import Session
from smtpmaild.transcripts.reading import LOCAL


def text_of(
    session: Session, lines: Sequence[str], *, rules: Iterable[str], is_implicit_tls: bool, is_closed: bool
) -> str:
    """A recorded session. lines: of both sides.  rules: that decided anything.  is_closed: by the server."""
    name = f" {session.client_name}" if session.client_name else ""
    head = [f"# session {session.session_id}"]
    head += [f"# decided by {rule}" for rule in rules]
    head += [f"@client {session.peer.host or LOCAL}{name}", f"@listener {session.listener}"]
    head += ["@tls implicit"] if is_implicit_tls else []
    return "\n".join([*head, *lines, *(["S."] if is_closed else []), ""])
