"""The words of reports: English, a file of the operator's, and its mistakes."""

from __future__ import annotations

import pytest

from smtpmaild.queue.reports import Action
from smtpmaild.queue.words import ENGLISH, FIELDS, Text, parse

FACTS = {name: f"<{name}>" for name in FIELDS}
GERMAN = """
[failed]
Subject: Nicht zustellbar: {queue_id}

An diese Empfänger ging sie nicht:

{recipients}

Grüße, {hostname}

[delayed]
Subject: Verzögert

{recipients} bis {until}
"""


@pytest.mark.parametrize("action", Action)
def test_english_tells_of_everything(action: Action) -> None:
    text = ENGLISH[action].filled(FACTS)
    assert "<recipients>" in text.body
    assert "<hostname>" in text.body
    assert "{" not in text.subject + text.body
    assert text.subject.isascii() and text.body.isascii()
    assert max(map(len, text.body.splitlines())) < 90


def test_a_file_replaces_what_it_has_and_leaves_the_rest() -> None:
    words = parse(GERMAN, ENGLISH)
    assert words[Action.FAILED].filled(FACTS) == Text(
        "Nicht zustellbar: <queue_id>",
        "An diese Empfänger ging sie nicht:\n\n<recipients>\n\nGrüße, <hostname>\n",
    )
    assert words[Action.DELAYED].subject == "Verzögert"
    assert words[Action.DELIVERED] == ENGLISH[Action.DELIVERED]


def test_facts_are_not_read_for_names() -> None:
    assert Text("s", "{sender}").filled({**FACTS, "sender": "{hostname}@x.example"}).body == "{hostname}@x.example"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "there is no text in it: each begins with a line such as [failed]"),
        ("\nHello\n[failed]", "line 2: a text begins with a line such as [failed]"),
        ("[faild]", "line 1: no text is called 'faild'; there are failed, delayed, delivered, relayed, expanded"),
        ("[failed]\nHello", "line 2: a text begins with 'Subject: ...' and an empty line"),
        ("[failed]", "line 2: a text begins with 'Subject: ...' and an empty line"),
        ("[failed]\nSubject:\n\n{recipients}", "line 2: a text begins with 'Subject: ...' and an empty line"),
        ("[failed]\nSubject: x\n{recipients}", "line 2: a text begins with 'Subject: ...' and an empty line"),
        ("[failed]\nSubject: {recipients}\n\n{recipients}", "line 2: {recipients} is too long for a subject"),
        ("[failed]\nSubject: x", "line 1: this text does not name {recipients}: nobody could tell what it is about"),
        (
            "[failed]\nSubject: x\n\n{recipients}\n{recipient}",
            f"line 5: no fact is called '{{recipient}}'; there are {', '.join(FIELDS)}",
        ),
        ("[failed]\nSubject: x\n\n{recipients}\n[failed]", "line 5: there is another text 'failed'"),
    ],
)
def test_mistakes(text: str, mistake: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text, ENGLISH)
    assert str(caught.value) == mistake
