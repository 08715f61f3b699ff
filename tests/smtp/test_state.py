"""The two tables of the session: they are whole, they agree with each other, and no state is a trap."""

from __future__ import annotations

import pytest

from smtpmaild.smtp.extension import BASE_VERBS, LMTP_VERBS
from smtpmaild.smtp.reply import Reply
from smtpmaild.smtp.state import LMTP_REFUSALS, NEXT, OTHER_REFUSALS, REFUSALS, Cause, State

#: States in which a command line is read and none is waited for by the tables alone.
COMMAND_STATES = [
    State.REFUSED,
    State.START,
    State.READY,
    State.SENDER,
    State.RECIPIENT,
    State.CHUNKS,
    State.CHUNKS_FAILED,
]
#: verbs of extensions that have an order of their own
EXTENSION_VERBS = {"BDAT", "XFORWARD", "XCLIENT", "AUTH", "STARTTLS", "ETRN"}
#: verb -> the cause that its acceptance is
CAUSES = {
    "HELO": Cause.HELLO,
    "EHLO": Cause.HELLO,
    "LHLO": Cause.HELLO,
    "MAIL": Cause.MAIL,
    "RCPT": Cause.RCPT,
    "DATA": Cause.DATA,
    "BDAT": Cause.BDAT,
    "RSET": Cause.RSET,
    "STARTTLS": Cause.STARTTLS,
    "XCLIENT": Cause.XCLIENT,
    "AUTH": Cause.CHALLENGE,
    "QUIT": Cause.CLOSE,
}
#: Where acceptance moves nothing, and that is meant.
STAYS = {
    ("RCPT", State.RECIPIENT),  # one more recipient
    ("BDAT", State.CHUNKS),  # one more chunk
    ("RSET", State.START),  # nothing to forget before HELO
}


def refusal(verb: str, state: State) -> Reply | None:
    return REFUSALS.get(verb, OTHER_REFUSALS).get(state)


#: RFC 5321 §4.1.4, in one picture: "." is in order, a number is the reply to what is not.
ORDER = """
        REFUSED START READY SENDER RECIPIENT CHUNKS CHUNKS_FAILED
HELO    503     .     .     .      .         .      .
EHLO    503     .     .     .      .         .      .
LHLO    503     .     .     .      .         .      .
MAIL    503     503   .     503    503       503    503
RCPT    503     503   503   .      .         503    503
DATA    503     503   503   554    .         503    503
BDAT    503     503   503   554    .         .      503
XFORWARD 503    503   .     503    503       503    503
XCLIENT 503     .     .     503    503       503    503
STARTTLS 503    .     .     .      .         503    503
AUTH    503     503   .     503    503       503    503
ETRN    503     503   .     503    503       503    503
RSET    503     .     .     .      .         .      .
NOOP    503     .     .     .      .         .      .
VRFY    503     .     .     .      .         .      .
EXPN    503     .     .     .      .         .      .
HELP    503     .     .     .      .         .      .
TURN    503     .     .     .      .         .      .
QUIT    .       .     .     .      .         .      .
"""


def cells() -> list[tuple[str, State, str]]:
    header, *rows = (line.split() for line in ORDER.strip().splitlines())
    return [
        (verb, State[state], cell)
        for verb, *row in rows
        for state, cell in zip(header, row, strict=True)
    ]  # fmt: skip


#: Where LMTP says something else (RFC 2033 §4.1, §4.2).
IN_LMTP = {
    **{
        (verb, State.START): "503 5.5.1 Send LHLO first"
        for verb in ("MAIL", "RCPT", "DATA", "BDAT", "XFORWARD", "AUTH", "ETRN")
    },
    **{(verb, State.SENDER): "503 5.5.1 No valid recipients" for verb in ("DATA", "BDAT")},
}


def test_order_of_commands_in_lmtp() -> None:
    for verb, row in REFUSALS.items():
        assert set(LMTP_REFUSALS[verb]) == set(row)
        for state, answer in row.items():
            assert str(LMTP_REFUSALS[verb][state]) == IN_LMTP.get((verb, state), str(answer)), (verb, state)


@pytest.mark.parametrize(("verb", "state", "cell"), cells())
def test_order_of_commands(verb: str, state: State, cell: str) -> None:
    answer = refusal(verb, state)
    assert (str(answer.code) if answer else ".") == cell
    assert answer is None or answer.enhanced == "5.5.1"


@pytest.mark.parametrize("state", COMMAND_STATES)
@pytest.mark.parametrize("verb", CAUSES)
def test_what_is_in_order_leads_somewhere(verb: str, state: State) -> None:
    leads = state in NEXT[CAUSES[verb]]
    assert leads == (refusal(verb, state) is None and (verb, state) not in STAYS)


def test_tables_know_every_name() -> None:
    assert set(NEXT) == set(Cause)
    assert set(REFUSALS) <= {*BASE_VERBS, *LMTP_VERBS, *EXTENSION_VERBS}
    assert set(CAUSES) <= {*BASE_VERBS, *LMTP_VERBS, *EXTENSION_VERBS}


def reachable() -> dict[State, set[State]]:
    graph: dict[State, set[State]] = {state: set() for state in State}
    for table in NEXT.values():
        for state, following in table.items():
            graph[state].add(following)
    return graph


def test_every_state_is_reached() -> None:
    graph = reachable()
    seen = {State.CONNECTED}
    queue = [State.CONNECTED]
    while queue:
        for following in graph[queue.pop()] - seen:
            seen.add(following)
            queue.append(following)
    assert seen == set(State)


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_closed_and_nothing_follows(state: State) -> None:
    assert NEXT[Cause.CLOSE][state] is State.CLOSED
    assert reachable()[State.CLOSED] == {State.CLOSED}
