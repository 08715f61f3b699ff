"""The EHLO table: each extension is a row with what it says in EHLO and what it adds to the commands.

A listener speaks a `Dialect`: the rows it offers, compiled once into look-ups. What is not in it is neither
advertised nor understood: a parameter of an extension that is off is unknown (555), its verbs are unrecognized (500).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Generic, TypeVar

from smtpmaild.smtp import reply as replies
from smtpmaild.smtp.address import ToAscii, no_idna
from smtpmaild.smtp.events import Mail, Rcpt
from smtpmaild.smtp.reply import Reply
from smtpmaild.smtp.state import LMTP_REFUSALS, REFUSALS
from smtpmaild.smtp.timing import date_text

_NOTHING: Mapping[str, str] = MappingProxyType({})
# RFC 5321 §4.5.3.1.4: "The maximum total length of a command line including the command word and the <CRLF> is 512
# octets. SMTP extensions may be used to increase this limit."
BASE_LINE_LIMIT = 512


class Security(Enum):
    """How far a connection is protected: a listener offers other extensions before TLS than within."""

    CLEAR = "no TLS"
    TLS = "within TLS"
    BOUND = "within TLS, and there is a channel binding for SASL (RFC 5056)"

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What a listener lets its sessions do.

    message_size: bytes, 0 for no limit.  recipients: accepted ones per message.  body_line: octets of a message line
    without CRLF, 0 for any.  keep_bare_newlines: do not refuse a message for a bare CR or LF.  allow_bare_lf: LF ends
    a command as CRLF does; never the end of data.  bad_commands, refused_recipients: how many before 421.  listens:
    verbs that the driver wants to answer itself (NOOP, VRFY, ... and "linetobig"); it offers none of them by that.
    starttls: offered before TLS.  requires_tls: nothing else is of use before it.  mechanisms: SASL names for AUTH, the
    preferred one first; none: no AUTH.  auth_in_clear: AUTH is offered before TLS as well.  requires_auth: no mail
    before it.  is_lmtp: speak LMTP (RFC 2033): LHLO, and a reply for each recipient at the end of a message.  reports:
    senders are told what becomes of their mail as they wish (DSN).  delivers_by: senders may set a time to deliver by
    (DELIVERBY), which with R is at least least_by seconds.  longest_hold: seconds that a sender may have a message held
    back (FUTURERELEASE), 0: not at all.  priorities: the profile of MT-PRIORITY, "" for none.  requires_onward_tls: a
    sender may ask that a message travels on within verified TLS or not at all (REQUIRETLS).  clock: seconds since the
    epoch, where times are spoken of.
    """

    hostname: str
    banner: str = "ESMTP smtpmaild Service ready"
    message_size: int = 50_000_000
    recipients: int = 1000
    messages: int = 0
    body_line: int = 998
    keep_bare_newlines: bool = False
    allow_bare_lf: bool = False
    bad_commands: int = 20
    refused_recipients: int = 100
    listens: frozenset[str] = frozenset()
    to_ascii: ToAscii = no_idna
    is_lmtp: bool = False
    starttls: bool = False
    requires_tls: bool = False
    mechanisms: tuple[str, ...] = ()
    auth_in_clear: bool = False
    requires_auth: bool = False
    reports: bool = False
    delivers_by: bool = False
    least_by: int = 0
    longest_hold: int = 0
    priorities: str = ""
    requires_onward_tls: bool = False
    clock: Callable[[], float] = field(default=lambda: 0.0)

    def at(self, security: Security) -> ServerOptions:
        """What of it holds for a connection that is protected so far."""
        mechanisms = self.mechanisms
        if security is Security.CLEAR and not self.auth_in_clear:
            mechanisms = ()
        if security is not Security.BOUND:
            mechanisms = tuple(name for name in mechanisms if not name.endswith("-PLUS"))
        if security is Security.CLEAR:
            # RFC 8689 §2: REQUIRETLS is offered within TLS only.
            return replace(self, mechanisms=mechanisms, requires_onward_tls=False)
        # RFC 3207 §4.2: "A server MUST NOT return the STARTTLS extension in response to an EHLO command received after
        # a TLS handshake has completed."
        return replace(self, mechanisms=mechanisms, starttls=False, requires_tls=False)


@dataclass(frozen=True, slots=True)
class Extension:
    """A row of the table.

    words: what stands behind the keyword in EHLO.  mail, rcpt: parameter keyword -> regular expression of its value,
    "" for a parameter without value.  verbs: commands that it brings.  growth: octets that it adds to the longest
    command line.  needs: keywords without which it is not offered.  is_wanted: whether a listener with these options
    offers it.
    """

    keyword: str
    words: Callable[[ServerOptions], str] = field(default=lambda _: "")
    mail: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    rcpt: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    verbs: tuple[str, ...] = ()
    growth: int = 0
    needs: tuple[str, ...] = ()
    is_wanted: Callable[[ServerOptions], bool] = field(default=lambda _: True)


def _limits(options: ServerOptions) -> str:
    # RFC 9422 §4: MAILMAX and RCPTMAX, each only where there is such a limit.
    mail_max = f"MAILMAX={options.messages} " if options.messages else ""
    return f"{mail_max}RCPTMAX={options.recipients}"


# xtext = *( xchar / hexchar );  xchar is %x21-7E without "+" and "=";  hexchar = "+" and two of 0-9, A-F  (RFC 3461 §4)

# RFC 4954 §8: what it stands for "MUST be either a <mailbox> or the two characters "<>"". No mailbox has control
# characters (RFC 5321 §4.1.2). More is not asked of it: no client is trusted to name somebody (§5).
_MAILBOX_XTEXT = r"(?:[!-*,-<>-~]|\+(?:[2-689A-F][0-9A-F]|7[0-9A-E]))"
# RFC 3461 §4.2, §4.4: what it stands for "MUST consist entirely of printable (graphic and white space) characters from
# the US-ASCII repertoire". Of white space, a blank: it ends up in one line of a report.
_PRINTABLE_XTEXT = r"(?:[!-*,-<>-~]|\+(?:[2-6][0-9A-F]|7[0-9A-E]))"
_GLOBAL_XTEXT = r"(?:[!-*,-<>-~\u00a0-\U0010ffff]|\+(?:[2-689A-F][0-9A-F]|7[0-9A-E]))"  # the octets of UTF-8, too
_ATOM = r"[A-Za-z0-9!#$%&'*+/?^_`{|}~\-]+"

#: In the order of the EHLO reply. XFORWARD, XCLIENT and ETRN are offered to trusted peers only.
EXTENSIONS: tuple[Extension, ...] = (
    Extension("PIPELINING"),  # RFC 2920
    # RFC 1870 §3: size-value ::= 1*20DIGIT; §5: the MAIL line grows by 26
    Extension("SIZE", lambda options: str(options.message_size), mail={"SIZE": r"[0-9]{1,20}"}, growth=26),
    Extension("8BITMIME", mail={"BODY": "7BIT|8BITMIME"}, growth=17),  # RFC 6152
    # RFC 6531 §3.1. Without IDNA such an address cannot be understood.
    Extension(
        "SMTPUTF8",
        mail={"SMTPUTF8": ""},
        growth=10,
        needs=("8BITMIME",),
        is_wanted=lambda options: options.to_ascii is not no_idna,
    ),
    Extension("ENHANCEDSTATUSCODES"),  # RFC 2034
    Extension("CHUNKING", verbs=("BDAT",)),  # RFC 3030
    Extension("BINARYMIME", mail={"BODY": "BINARYMIME"}, needs=("CHUNKING", "8BITMIME")),  # RFC 3030 §3
    Extension("HELP", verbs=("HELP",)),  # RFC 5321 §4.1.1.1
    Extension("LIMITS", _limits),  # RFC 9422
    Extension("STARTTLS", verbs=("STARTTLS",), is_wanted=lambda options: options.starttls),  # RFC 3207
    # RFC 4954 §3: the MAIL line grows by 500 octets for AUTH=; §5: its value is xtext of an address, or "<>"
    Extension(
        "AUTH",
        lambda options: " ".join(options.mechanisms),
        mail={"AUTH": f"{_MAILBOX_XTEXT}+"},
        verbs=("AUTH",),
        growth=500,
        is_wanted=lambda options: bool(options.mechanisms),
    ),
    # RFC 3461 §4.1-§4.4: NEVER stands alone; ENVID has at most 100 characters, ORCPT 500. Growth is what the longest
    # values of RCPT, the longer command, come to. Address type utf-8 may hold characters beyond ASCII (RFC 6533 §3).
    Extension(
        "DSN",
        mail={"RET": "FULL|HDRS", "ENVID": rf"(?=.{{1,100}}\Z){_PRINTABLE_XTEXT}+"},
        rcpt={
            "NOTIFY": "NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY)){0,2}",
            "ORCPT": rf"(?=.{{1,500}}\Z)(?:{_ATOM};{_PRINTABLE_XTEXT}+|utf-8;{_GLOBAL_XTEXT}+)",
        },
        growth=len(" NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=") + 500,
        is_wanted=lambda options: options.reports,
    ),
    # RFC 2852 §2: min-by-time behind the keyword; §4: by-value = by-time ";" by-mode [by-trace], by-time a number of at
    # most nine digits with its sign, in seconds.
    Extension(
        "DELIVERBY",
        lambda options: str(options.least_by) if options.least_by else "",
        mail={"BY": r"[-+]?[0-9]{1,9};[RN]T?"},
        growth=17,
        is_wanted=lambda options: options.delivers_by,
    ),
    # RFC 4865 §3: "max-future-release-interval" and "max-future-release-date-time"; the time is that of RFC 3339 in any
    # zone (erratum 2040).
    Extension(
        "FUTURERELEASE",
        lambda options: f"{options.longest_hold} {date_text(options.clock() + options.longest_hold)}",
        mail={
            "HOLDFOR": "[1-9][0-9]{0,8}",
            "HOLDUNTIL": r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?"
            r"(?:Z|[-+][0-9]{2}:[0-9]{2})",
        },
        growth=34,
        is_wanted=lambda options: options.longest_hold > 0,
    ),
    # RFC 6710 §3: the Priority Assignment Policy; §7: priority-value = (["-"] NZDIGIT) / "0"
    Extension(
        "MT-PRIORITY",
        lambda options: options.priorities,
        mail={"MT-PRIORITY": "-?[1-9]|0"},
        growth=15,
        is_wanted=lambda options: bool(options.priorities),
    ),
    # RFC 8689 §2: no value; the MAIL line grows by 11.
    Extension("REQUIRETLS", mail={"REQUIRETLS": ""}, growth=11, is_wanted=lambda options: options.requires_onward_tls),
)
#: Postfix's XFORWARD, with the attributes of its README; each value is xtext of at most 255 octets.
XFORWARD = Extension("XFORWARD", lambda _: "NAME ADDR PORT PROTO HELO IDENT SOURCE", verbs=("XFORWARD",))
#: Postfix's XCLIENT. For who is not trusted it is a command that is not known.
XCLIENT = Extension("XCLIENT", lambda _: "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT", verbs=("XCLIENT",))
#: RFC 1985: a host that is there now and then asks for the mail that waits for it.
ETRN = Extension("ETRN", verbs=("ETRN",))

#: Verbs that RFC 5321 knows without any extension.
BASE_VERBS = (
    "HELO", "EHLO", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "QUIT", "VRFY", "EXPN",
    "SEND", "SOML", "SAML", "TURN",
)  # fmt: skip
#: LMTP has one greeting in place of two (RFC 2033 §4.1).
LMTP_VERBS = ("LHLO", *[verb for verb in BASE_VERBS if verb not in ("HELO", "EHLO")])
# Answered with 502 unless a program listens for them: HELP does not offer them.
_HISTORY = ("EXPN", "SEND", "SOML", "SAML", "TURN")


Parsed = TypeVar("Parsed", Mail, Rcpt)


class Known(Generic[Parsed]):
    """Arguments of MAIL or RCPT that were parsed before, without parameters: few senders and recipients make most of
    the mail, and finding an event again costs 0.1 us instead of 8. Never more than `most`, whatever a peer sends."""

    __slots__ = ("_events", "_most", "get")

    def __init__(self, most: int = 4096) -> None:
        self._events: dict[str, Parsed] = {}
        self._most = most
        self.get: Callable[[str], Parsed | None] = self._events.get

    def put(self, argument: str, event: Parsed) -> None:
        """Remember; when there is no room, forget all others."""
        if len(self._events) >= self._most:
            self._events.clear()
        self._events[argument] = event


class Dialect:
    """Options and extensions of a listener, compiled: what sessions look up while they run.

    has_times: MAIL may speak of times, which are looked at when it comes.
    added_verbs, removed_verbs: what a program understands besides or no longer.  security: of the connections that
    speak it; at() is the same listener's dialect for others.  locked: verb -> why it is refused, and locked_until_auth:
    the same until the client has signed in.  Raises ValueError for two extensions that offer one verb.
    """

    __slots__ = (
        "_made_with", "_offered", "_siblings", "banner", "bye", "ehlo", "has_enhanced_codes", "has_times", "helo",
        "help", "is_lmtp", "keywords", "known_recipients", "known_senders", "line_limit", "locked", "locked_until_auth",
        "mail_parameters", "message_accepted", "options", "rcpt_parameters", "refusals", "timeout", "verbs",
    )  # fmt: skip

    def __init__(
        self,
        options: ServerOptions,
        extensions: Sequence[Extension] = EXTENSIONS,
        *,
        added_verbs: Collection[str] = (),
        removed_verbs: Collection[str] = (),
        security: Security = Security.CLEAR,
    ) -> None:
        self._made_with = (options, extensions, added_verbs, removed_verbs)
        self._siblings = {security: self}
        might_authenticate = bool(options.mechanisms)
        options = options.at(security)
        offered = _offered(options, extensions)
        keywords = {extension.keyword for extension in offered}
        self.options = options
        self._offered = offered
        self.has_times = not keywords.isdisjoint(("DELIVERBY", "FUTURERELEASE"))
        self.has_enhanced_codes = "ENHANCEDSTATUSCODES" in keywords
        self.is_lmtp = options.is_lmtp
        self.refusals = LMTP_REFUSALS if options.is_lmtp else REFUSALS
        self.locked = _locked(options, security, might_authenticate=might_authenticate)
        base_verbs = LMTP_VERBS if options.is_lmtp else BASE_VERBS
        self.verbs = _verbs(base_verbs, offered).union(self.locked, added_verbs).difference(removed_verbs)
        if options.requires_tls:
            self.locked = {**dict.fromkeys(self.verbs - _BEFORE_TLS, replies.TLS_FIRST), **self.locked}
        unlocked = _BEFORE_AUTH if options.requires_auth else self.verbs
        self.locked_until_auth = {**dict.fromkeys(self.verbs - unlocked, replies.AUTH_REQUIRED), **self.locked}
        self.mail_parameters = _patterns([row.mail for row in offered])
        self.rcpt_parameters = _patterns([row.rcpt for row in offered])
        self.known_senders: Known[Mail] = Known()
        self.known_recipients: Known[Rcpt] = Known()
        self.line_limit = BASE_LINE_LIMIT + sum(row.growth for row in offered)
        # RFC 2034 §4: no enhanced code in the greeting and in the replies to HELO and EHLO; LHLO has "identical
        # semantics" (RFC 2033 §4.1).
        self.banner = Reply(220, "", f"{options.hostname} {options.banner}")
        self.helo = Reply(250, "", f"{options.hostname} Requested mail action okay, completed")
        self.renew()
        self.message_accepted = replies.COMMAND_OK if options.is_lmtp else replies.MESSAGE_ACCEPTED
        # RFC 5321 §4.2.3: 221 and 421 begin with our <domain>.
        self.bye = Reply(221, "2.0.0", f"{options.hostname} Service closing transmission channel")
        self.timeout = Reply(421, "4.4.2", f"{options.hostname} Timeout exceeded, closing transmission channel")
        known = self.verbs.difference(_HISTORY)
        self.help = Reply(214, "2.0.0", "Commands: " + " ".join(sorted(known.difference(self.locked))))

    def renew(self) -> None:
        """Say in EHLO what holds now: the time that a message can be held until goes with the clock."""
        options = self.options
        self.keywords = tuple(f"{row.keyword} {row.words(options)}".strip() for row in self._offered)
        self.ehlo = Reply(250, "", "\n".join((f"{options.hostname} Service ready", *self.keywords)))

    def at(self, security: Security) -> Dialect:
        """The dialect of the same listener for connections that are protected so far; compiled when first asked for."""
        if security not in self._siblings:
            options, extensions, added, removed = self._made_with
            sibling = Dialect(options, extensions, added_verbs=added, removed_verbs=removed, security=security)
            sibling._siblings = self._siblings
            self._siblings[security] = sibling
        return self._siblings[security]


# RFC 3207 §4: 530 "to every command other than NOOP, EHLO, STARTTLS, or QUIT".
_BEFORE_TLS = frozenset(("NOOP", "EHLO", "LHLO", "STARTTLS", "QUIT"))
# RFC 4954 §6: 530 to "any command other than AUTH, EHLO, HELO, NOOP, RSET, or QUIT"; TLS may come first, and XCLIENT
# may bring the login along.
_BEFORE_AUTH = frozenset(("AUTH", "EHLO", "HELO", "LHLO", "NOOP", "RSET", "QUIT", "STARTTLS", "HELP", "XCLIENT"))


def _locked(options: ServerOptions, security: Security, *, might_authenticate: bool) -> dict[str, Reply]:
    """Verbs that are understood, but have their time before or after: not unknown, refused with the reason."""
    # A SMTP client that was sent to the wrong door is told so.
    locked = dict.fromkeys(("HELO", "EHLO"), replies.LMTP_IS_SPOKEN) if options.is_lmtp else {}
    if security is not Security.CLEAR:
        locked["STARTTLS"] = replies.TLS_ALREADY
    elif might_authenticate and not options.mechanisms:
        locked["AUTH"] = replies.AUTH_NEEDS_TLS
    return locked


def _offered(options: ServerOptions, extensions: Sequence[Extension]) -> list[Extension]:
    """The rows that are wanted and whose needs are met."""
    rows = [row for row in extensions if row.is_wanted(options)]
    keywords = {row.keyword for row in rows}
    return [row for row in rows if keywords.issuperset(row.needs)]


def _verbs(base: Sequence[str], extensions: Sequence[Extension]) -> frozenset[str]:
    verbs = [*base]
    for extension in extensions:
        for verb in extension.verbs:
            if verb in verbs:
                raise ValueError(f"two extensions offer the verb {verb}")
            verbs.append(verb)
    return frozenset(verbs)


def _patterns(tables: Sequence[Mapping[str, str]]) -> dict[str, re.Pattern[str]]:
    """Parameter keyword -> pattern of its value; extensions that share a keyword (BODY) add their values up."""
    merged: dict[str, str] = {}
    for table in tables:
        for keyword, pattern in table.items():
            merged[keyword] = f"{merged[keyword]}|{pattern}" if keyword in merged else pattern
    return {keyword: re.compile(pattern, re.IGNORECASE | re.ASCII) for keyword, pattern in merged.items()}
