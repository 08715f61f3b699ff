"""What people read in a report, by what it tells: English built in, replaceable by a file of the operator.

The file is plain text in UTF-8. A line such as `[failed]`, with the name of an action, begins a text, its next line is
the subject, and what follows an empty line is what people read; what the file leaves out stays English. `{name}` stands
for a fact: a name that is none of FIELDS is a mistake, found when the configuration is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from smtpmaild.queue.reports import Action

#: Facts that a text may name, and what each is.
FIELDS: Mapping[str, str] = MappingProxyType({
    "hostname": "this server",
    "sender": "the address the report goes to",
    "queue_id": "the message's name in our log",
    "received_at": "when we took the message",
    "recipients": "each recipient on a line, below it what was said of it; not for subjects",
    "until": "when we give up",
})  # fmt: skip

_SECTION = re.compile(r"\[(.*)\]\s*")
_FIELD = re.compile(r"\{([^{}\n]*)\}")
_SUBJECT = "Subject:"

_ENGLISH = """\
[failed]
Subject: Your message could not be delivered

This is the mail server {hostname}.

Your message of {received_at} could not be delivered to:

{recipients}

It will not be tried again. If the address is right, please ask the recipient, by
another way, what is wrong, or send this report to your postmaster. The headers of
your message, or all of it, are attached.

(Queue id: {queue_id})
[delayed]
Subject: Your message is delayed

This is the mail server {hostname}.

Your message of {received_at} could not be delivered yet to:

{recipients}

You need not send it again: we go on trying until {until}, and tell you
if we give up.

(Queue id: {queue_id})
[delivered]
Subject: Your message was delivered

This is the mail server {hostname}.

As you asked to be told: your message of {received_at} was delivered to:

{recipients}

(Queue id: {queue_id})
[relayed]
Subject: Your message was passed on

This is the mail server {hostname}.

As you asked to be told: your message of {received_at} was passed on to the mail
server of the recipients below, which does not report what becomes of it:

{recipients}

(Queue id: {queue_id})
[expanded]
Subject: Your message was passed to several recipients

This is the mail server {hostname}.

As you asked to be told: your message of {received_at} was accepted for
everybody who is behind the addresses below. You will not hear when it reaches
each of them.

{recipients}

(Queue id: {queue_id})
"""


@dataclass(frozen=True, slots=True)
class Text:
    """A subject and what people read, with {names} in them."""

    subject: str
    body: str

    def filled(self, facts: Mapping[str, str]) -> Text:
        """With the facts in place of their names."""
        subject, body = (_FIELD.sub(lambda match: facts[match[1]], text) for text in (self.subject, self.body))
        return Text(subject, body)


Words = Mapping[Action, Text]


def parse(text: str, defaults: Words) -> Words:
    """The texts of a file, with `defaults` for those it leaves out. Raises ValueError for the first mistake."""
    found = dict(defaults)
    seen: set[Action] = set()
    for first, name, lines in _sections(text):
        action = _ACTIONS.get(name)
        if action is None:
            raise ValueError(f"line {first}: no text is called '{name}'; there are {', '.join(_ACTIONS)}")
        if action in seen:
            raise ValueError(f"line {first}: there is another text '{name}'")
        seen.add(action)
        found[action] = _text(first, lines)
    if not seen:
        raise ValueError("there is no text in it: each begins with a line such as [failed]")
    return MappingProxyType(found)


_ACTIONS = {action.value: action for action in Action}


def _sections(text: str) -> list[tuple[int, str, list[str]]]:
    """Number of the first line, name and the other lines of each."""
    sections: list[tuple[int, str, list[str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if match := _SECTION.fullmatch(line):
            sections.append((number, match[1], []))
        elif sections:
            sections[-1][2].append(line)
        elif line.strip():
            raise ValueError(f"line {number}: a text begins with a line such as [failed]")
    return sections


def _text(first: int, lines: list[str]) -> Text:
    subject = lines[0].removeprefix(_SUBJECT).strip() if lines and lines[0].startswith(_SUBJECT) else ""
    if not subject or (len(lines) > 1 and lines[1].strip()):
        raise ValueError(f"line {first + 1}: a text begins with 'Subject: ...' and an empty line")
    body = "\n".join(lines[1:]).strip("\n")
    if "{recipients}" in subject:
        raise ValueError(f"line {first + 1}: {{recipients}} is too long for a subject")
    if "{recipients}" not in body:
        raise ValueError(f"line {first}: this text does not name {{recipients}}: nobody could tell what it is about")
    for number, line in enumerate(lines, first + 1):
        for field in _FIELD.findall(line):
            if field not in FIELDS:
                raise ValueError(f"line {number}: no fact is called '{{{field}}}'; there are {', '.join(FIELDS)}")
    return Text(subject, f"{body}\n")


ENGLISH: Words = parse(_ENGLISH, {})
