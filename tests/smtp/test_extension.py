"""The EHLO table: what is offered, what it brings, and what its absence takes away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import idna
import pytest

from smtpmaild.smtp.address import NULL_REVERSE_PATH
from smtpmaild.smtp.events import Mail
from smtpmaild.smtp.extension import (
    BASE_VERBS,
    EXTENSIONS,
    XFORWARD,
    Dialect,
    Extension,
    Known,
    Security,
    ServerOptions,
)
from smtpmaild.smtp.reply import AUTH_NEEDS_TLS, AUTH_REQUIRED, RECIPIENT_OK, TLS_ALREADY, TLS_FIRST


def to_ascii(domain: str) -> str:
    return idna.encode(domain, uts46=True).decode()


OPTIONS = ServerOptions("mx.example", message_size=1000, recipients=5, to_ascii=to_ascii)
#: What a submission listener may do.
TRUSTED = replace(OPTIONS, starttls=True, mechanisms=("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN"))


#: One that tells senders what becomes of their mail.
REPORTING = replace(OPTIONS, reports=True)


def without(*keywords: str) -> list[Extension]:
    return [extension for extension in EXTENSIONS if extension.keyword not in keywords]


def test_ehlo_names_everything_in_order() -> None:
    lines = Dialect(OPTIONS, (*EXTENSIONS, XFORWARD)).ehlo.wire.decode().splitlines()
    assert lines == [
        "250-mx.example Service ready",
        "250-PIPELINING",
        "250-SIZE 1000",
        "250-8BITMIME",
        "250-SMTPUTF8",
        "250-ENHANCEDSTATUSCODES",
        "250-CHUNKING",
        "250-BINARYMIME",
        "250-HELP",
        "250-LIMITS RCPTMAX=5",
        "250 XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE",
    ]


def test_without_extensions_ehlo_is_one_line() -> None:
    dialect = Dialect(OPTIONS, ())
    assert dialect.ehlo.wire == b"250 mx.example Service ready\r\n"
    assert dialect.verbs == frozenset(BASE_VERBS)
    assert dialect.line_limit == 512
    assert not dialect.mail_parameters
    assert not dialect.rcpt_parameters
    assert not dialect.has_enhanced_codes


@pytest.mark.parametrize(
    ("options", "line"),
    [
        # RFC 1870 §4: "0" for no fixed maximum
        (ServerOptions("h", message_size=0), "SIZE 0"),
        # RFC 9422 §4: limits that exist, separated by blanks
        (ServerOptions("h", messages=7, recipients=3), "LIMITS MAILMAX=7 RCPTMAX=3"),
    ],
)
def test_words(options: ServerOptions, line: str) -> None:
    assert line in Dialect(options).keywords


@pytest.mark.parametrize(
    ("extensions", "missing"),
    [
        # BDAT is the only way to send binary, and MAIL the only place to say so
        (without("CHUNKING"), {"CHUNKING", "BINARYMIME"}),
        # RFC 6531 §3.1: a server that offers SMTPUTF8 "MUST provide support for, and announce, the 8BITMIME extension"
        (without("8BITMIME"), {"8BITMIME", "BINARYMIME", "SMTPUTF8"}),
        (without("BINARYMIME"), {"BINARYMIME"}),
        (without("HELP", "SIZE"), {"HELP", "SIZE"}),
    ],
)
def test_what_needs_another_goes_with_it(extensions: Sequence[Extension], missing: set[str]) -> None:
    offered = {keyword.partition(" ")[0] for keyword in Dialect(OPTIONS, extensions).keywords}
    assert offered == {keyword.partition(" ")[0] for keyword in Dialect(OPTIONS).keywords} - missing


def test_without_idna_no_smtputf8() -> None:
    dialect = Dialect(ServerOptions("h"))
    assert "SMTPUTF8" not in dialect.keywords
    assert "SMTPUTF8" not in dialect.mail_parameters


@pytest.mark.parametrize(
    ("extensions", "keyword", "value", "is_taken"),
    [
        (EXTENSIONS, "BODY", "BinaryMime", True),
        (EXTENSIONS, "BODY", "8bitmime", True),
        (EXTENSIONS, "BODY", "7BIT", True),
        (EXTENSIONS, "BODY", "", False),
        (EXTENSIONS, "BODY", "7BITMIME", False),
        (EXTENSIONS, "BODY", "8B\u0131TMIME", False),  # an i to a comparison without case, and none
        (without("BINARYMIME"), "BODY", "BINARYMIME", False),
        (EXTENSIONS, "SIZE", "\u0661", False),
        (EXTENSIONS, "SIZE", "1\n", False),
        (EXTENSIONS, "SMTPUTF8", "", True),
        (EXTENSIONS, "SMTPUTF8", "x", False),
    ],
)
def test_values_of_mail(extensions: Sequence[Extension], keyword: str, value: str, is_taken: bool) -> None:
    assert bool(Dialect(OPTIONS, extensions).mail_parameters[keyword].fullmatch(value)) is is_taken


def test_extension_of_a_program() -> None:
    mine = Extension("XCOLOUR", lambda _: "RED BLUE", rcpt={"COLOUR": "red|blue"}, verbs=("XPAINT",), growth=12)
    dialect = Dialect(OPTIONS, (mine,))
    assert dialect.keywords == ("XCOLOUR RED BLUE",)
    assert "XPAINT" in dialect.verbs
    assert dialect.rcpt_parameters["COLOUR"].fullmatch("Red")
    assert dialect.line_limit == 524


def test_two_extensions_with_one_verb() -> None:
    with pytest.raises(ValueError, match="two extensions offer the verb BDAT"):
        Dialect(OPTIONS, (*EXTENSIONS, Extension("XBDAT", verbs=("BDAT",))))
    with pytest.raises(ValueError, match="two extensions offer the verb MAIL"):
        Dialect(OPTIONS, (Extension("XMAIL", verbs=("MAIL",)),))


def test_mail_line_grows_by_what_each_extension_says() -> None:
    # RFC 1870 §5: 26, RFC 6152 §2: 17, RFC 6531 §3.1: 10
    assert Dialect(OPTIONS).line_limit == 512 + 26 + 17 + 10


def test_replies_that_carry_our_name() -> None:
    dialect = Dialect(OPTIONS)
    assert dialect.banner.wire == b"220 mx.example ESMTP smtpmaild Service ready\r\n"
    assert dialect.helo.wire == b"250 mx.example Requested mail action okay, completed\r\n"
    assert dialect.bye.wire == b"221 2.0.0 mx.example Service closing transmission channel\r\n"
    assert dialect.timeout.wire == b"421 4.4.2 mx.example Timeout exceeded, closing transmission channel\r\n"


def test_help_names_what_can_be_used() -> None:
    assert " BDAT " in Dialect(OPTIONS).help.text
    assert " BDAT " not in Dialect(OPTIONS, without("CHUNKING")).help.text


def test_program_adds_and_removes_verbs() -> None:
    dialect = Dialect(OPTIONS, added_verbs=["XPING"], removed_verbs=["EHLO", "HELP"])
    assert "XPING" in dialect.verbs
    assert not dialect.verbs & {"EHLO", "HELP"}
    assert "XPING" in dialect.help.text
    assert "EHLO" not in dialect.help.text


def test_known_arguments_stay_bounded_and_forget() -> None:
    known: Known[Mail] = Known(most=2)
    events = {text: Mail(NULL_REVERSE_PATH, {}, RECIPIENT_OK) for text in ("a", "b", "c")}
    for text, event in events.items():
        known.put(text, event)
    assert known.get("a") is None
    assert known.get("c") is events["c"]


def trust(options: ServerOptions, security: Security) -> list[str]:
    """The EHLO lines that tell of TLS and AUTH."""
    return [line for line in Dialect(options).at(security).keywords if line.startswith(("STARTTLS", "AUTH"))]


@pytest.mark.parametrize(
    ("options", "in_clear", "within_tls", "bound"),
    [
        (OPTIONS, [], [], []),
        # no password travels in clear; -PLUS is for those who can bind to their TLS connection
        (TRUSTED, ["STARTTLS"], ["AUTH SCRAM-SHA-256 PLAIN"], ["AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN"]),
        (
            replace(TRUSTED, auth_in_clear=True, starttls=False),
            ["AUTH SCRAM-SHA-256 PLAIN"],
            ["AUTH SCRAM-SHA-256 PLAIN"],
            ["AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN"],
        ),
        # nothing is left to offer where there is no binding
        (replace(OPTIONS, mechanisms=("SCRAM-SHA-256-PLUS",)), [], [], ["AUTH SCRAM-SHA-256-PLUS"]),
    ],
)
def test_what_is_offered_before_tls_and_within(
    options: ServerOptions, in_clear: list[str], within_tls: list[str], bound: list[str]
) -> None:
    assert trust(options, Security.CLEAR) == in_clear
    assert trust(options, Security.TLS) == within_tls
    assert trust(options, Security.BOUND) == bound


def test_dialects_of_one_listener_know_each_other() -> None:
    clear = Dialect(TRUSTED, without("HELP"), added_verbs=["XPING"], removed_verbs=["TURN"])
    secured = clear.at(Security.TLS)
    assert secured.at(Security.CLEAR) is clear
    assert secured.at(Security.BOUND) is clear.at(Security.BOUND)
    assert "XPING" in secured.verbs
    assert not secured.verbs & {"HELP", "TURN"}


@pytest.mark.parametrize(
    ("options", "security", "locked", "locked_until_auth"),
    [
        (OPTIONS, Security.CLEAR, {}, {}),
        (TRUSTED, Security.CLEAR, {"AUTH": AUTH_NEEDS_TLS}, {"AUTH": AUTH_NEEDS_TLS}),
        (TRUSTED, Security.TLS, {"STARTTLS": TLS_ALREADY}, {"STARTTLS": TLS_ALREADY}),
        (replace(TRUSTED, auth_in_clear=True), Security.CLEAR, {}, {}),
    ],
)
def test_what_has_its_time(
    options: ServerOptions, security: Security, locked: object, locked_until_auth: object
) -> None:
    dialect = Dialect(options).at(security)
    assert dialect.locked == locked
    assert dialect.locked_until_auth == locked_until_auth


def test_before_tls_that_is_required() -> None:
    # RFC 3207 §4: 530 "to every command other than NOOP, EHLO, STARTTLS, or QUIT"
    dialect = Dialect(replace(TRUSTED, requires_tls=True))
    assert dialect.verbs - set(dialect.locked) == {"NOOP", "EHLO", "STARTTLS", "QUIT"}
    assert dialect.locked["MAIL"] == TLS_FIRST
    assert dialect.locked["AUTH"] == AUTH_NEEDS_TLS
    assert dialect.at(Security.TLS).locked == {"STARTTLS": TLS_ALREADY}
    assert dialect.help.text == "Commands: EHLO NOOP QUIT STARTTLS"


def test_before_auth_that_is_required() -> None:
    dialect = Dialect(replace(TRUSTED, requires_auth=True)).at(Security.TLS)
    assert dialect.locked == {"STARTTLS": TLS_ALREADY}
    assert dialect.locked_until_auth["MAIL"] == AUTH_REQUIRED
    # RFC 4954 §6: 530 to "any command other than AUTH, EHLO, HELO, NOOP, RSET, or QUIT"; HELP helps
    unlocked = dialect.verbs - set(dialect.locked_until_auth)
    assert unlocked == {"AUTH", "EHLO", "HELO", "NOOP", "RSET", "QUIT", "HELP"}
    # and STARTTLS may come before
    assert "STARTTLS" not in Dialect(replace(TRUSTED, requires_auth=True)).locked_until_auth


@pytest.mark.parametrize(
    ("value", "is_taken"),
    [("<>", True), ("alice+40example.com", True), ("alice@example.com", True), ("a=b", False), ("a+4g", False)],
)
def test_auth_parameter_of_mail_is_xtext(value: str, is_taken: bool) -> None:
    dialect = Dialect(TRUSTED).at(Security.TLS)
    assert bool(dialect.mail_parameters["AUTH"].fullmatch(value)) is is_taken
    assert dialect.line_limit == Dialect(OPTIONS).line_limit + 500


def test_requiretls_is_offered_within_tls_where_it_can_be_kept() -> None:
    """RFC 8689 §2."""
    for promised in (False, True):
        options = replace(OPTIONS, starttls=True, requires_onward_tls=promised)
        for security in Security:
            dialect = Dialect(options).at(security)
            is_offered = promised and security is not Security.CLEAR
            assert ("REQUIRETLS" in dialect.keywords) is is_offered
            assert ("REQUIRETLS" in dialect.mail_parameters) is is_offered


def test_time_that_mail_can_be_held_until_goes_with_the_clock() -> None:
    times = iter((0.0, 60.0))
    dialect = Dialect(replace(OPTIONS, longest_hold=3600, clock=times.__next__))
    assert "FUTURERELEASE 3600 1970-01-01T01:00:00Z" in dialect.keywords
    dialect.renew()
    assert "FUTURERELEASE 3600 1970-01-01T01:01:00Z" in dialect.ehlo.text.splitlines()


@pytest.mark.parametrize(
    ("command", "keyword", "value", "is_taken"),
    [
        ("mail", "RET", "FULL", True),
        ("mail", "RET", "hdrs", True),
        ("mail", "RET", "ALL", False),
        ("mail", "ENVID", "QQ314159+2B", True),
        ("mail", "ENVID", "a" * 100, True),
        ("mail", "ENVID", "a" * 101, False),  # RFC 3461 §4.4
        ("mail", "ENVID", "a+b", False),  # "+" stands before two digits
        ("mail", "ENVID", "a+20b+7E", True),
        ("mail", "ENVID", "a+0D+0Ab", False),  # §4.4: printable characters of US-ASCII, and blanks
        ("mail", "ENVID", "a+7F", False),
        ("mail", "ENVID", "a+C3+BC", False),
        ("mail", "ENVID", "\u00fc", False),
        ("mail", "ENVID", "", False),
        ("rcpt", "NOTIFY", "NEVER", True),
        ("rcpt", "NOTIFY", "success,Failure,DELAY", True),
        ("rcpt", "NOTIFY", "NEVER,DELAY", False),  # §4.1: NEVER appears by itself
        ("rcpt", "NOTIFY", "SUCCESS,", False),
        ("rcpt", "NOTIFY", "ALWAYS", False),
        ("rcpt", "ORCPT", "rfc822;Bob+2Bx@y.example", True),
        ("rcpt", "ORCPT", "rfc822;" + "a" * 493, True),
        ("rcpt", "ORCPT", "rfc822;" + "a" * 494, False),  # §4.2
        ("rcpt", "ORCPT", 'rfc822;"b+20c"@y.example', True),
        ("rcpt", "ORCPT", "rfc822;bob+0A@y.example", False),  # §4.2, as §4.4
        ("rcpt", "ORCPT", "rfc822;bob+7f@y.example", False),
        ("rcpt", "ORCPT", "x400;b+FCro", False),
        ("rcpt", "ORCPT", "utf-8;b+C3+BCro@y.example", True),
        ("rcpt", "ORCPT", "utf-8;bob+00@y.example", False),
        ("rcpt", "ORCPT", "bob@y.example", False),
        ("rcpt", "ORCPT", "rfc822;", False),
        ("rcpt", "ORCPT", "rfc822;b\u00fc@y.example", False),
        ("rcpt", "ORCPT", "utf-8;b\u00fc@y.example", True),  # RFC 6533 §3
        ("rcpt", "ORCPT", "utf-8;b\\x{FC}@y.example", True),
        ("rcpt", "ORCPT", "rf c822;b@y.example", False),
    ],
)
def test_values_of_dsn(command: str, keyword: str, value: str, is_taken: bool) -> None:
    dialect = Dialect(REPORTING)
    patterns = dialect.mail_parameters if command == "mail" else dialect.rcpt_parameters
    assert (patterns[keyword].fullmatch(value) is not None) is is_taken


@pytest.mark.parametrize(
    ("value", "is_taken"),
    [
        ("<>", True),
        ("+3C+3E", True),  # RFC 4954 §8: "the decoded form of the xtext" is a mailbox or "<>"
        ("e+3Dmc2@example.com", True),  # §5.1
        ('"a+20b"@example.com', True),
        ("b+C3+BCro@example.com", True),  # §8: "non-US-ASCII is only allowed as hexchar"
        ("b\u00fcro@example.com", False),
        ("alice", True),  # no mailbox, but what some clients call one
        ("a+0D+0AX-Field:+20b", False),  # RFC 5321 §4.1.2: no mailbox has control characters
        ("a+00@example.com", False),
        ("a+1f@example.com", False),
        ("a+7F@example.com", False),
        ("e=mc2@example.com", False),
        ("a+2@example.com", False),
        ("", False),
    ],
)
def test_submitter_of_a_message(value: str, is_taken: bool) -> None:
    pattern = Dialect(replace(OPTIONS, mechanisms=("PLAIN",))).at(Security.TLS).mail_parameters["AUTH"]
    assert (pattern.fullmatch(value) is not None) is is_taken


def test_dsn_is_offered_where_reports_are_made() -> None:
    assert "DSN" in Dialect(REPORTING).keywords
    quiet = Dialect(OPTIONS)
    assert "DSN" not in quiet.keywords
    assert not {"RET", "ENVID"} & set(quiet.mail_parameters)
    assert not quiet.rcpt_parameters
