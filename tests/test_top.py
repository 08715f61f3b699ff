"""The screen of `smtpmaild top`: what is on it at each width, and that nothing on it moves anything."""

from __future__ import annotations

import io
import os
from typing import Any

import pytest
from rich.console import Console

from smtpmaild.top import Screen, frame

NOW = 1_790_000_000.0
SUMMARY: dict[str, Any] = {
    "hostname": "mx.example.com",
    "started_at": NOW - 3 * 3600,
    "now": NOW,
    "not_ready": "",
    "wanted": 2,
    "deaths": 0,
    "workers": [{"state": "serving", "lag": 0.001}, {"state": "serving", "lag": 0.0}],
    "listeners": [{"name": "mx", "sessions": 12}, {"name": "submission", "sessions": 3}],
    "numbers": {
        "messages_accepted": 17204,
        "recipients_accepted": 18000,
        "bytes_received": 123_400_000,
        "refusals": {
            "RCPT": {"550 5.1.1": {"local_domains.example.com (smtp.yaml:9)": 812}, "550 5.7.1": {"": 3}},
            "EHLO": {"501": {"helo_syntax": 40}},
        },
    },
    "rates": {"sessions_opened": 4.21, "messages_accepted": 3.4, "messages_refused": 0.2, "bytes_received": 70000.0},
    "queue": {"messages": 1204, "destinations": 3, "dead": 1, "in_flight": 12, "oldest": NOW - 7300, "size": 1},
}


def destination(name: str, messages: int = 0, age: float = 0.0, **more: Any) -> dict[str, Any]:
    oldest = NOW - age if age else None
    return {
        "destination": name,
        "messages": messages,
        "oldest": oldest,
        "last": "",
        "in_flight": 0,
        "dead_until": 0.0,
    } | more


DESTINATIONS = [
    destination("mx:quick.example", in_flight=2),
    destination("mx:slow.example", 3, 7300.0, last="451 4.7.1 greylisted"),
    destination("mx:dead.example", 1201, 60.0, dead_until=NOW + 9, last="no route"),
    destination("mx:empty.example"),
]
RECENT = [
    (NOW, "good", "accepted a@x.example > b@example.com"),
    (NOW - 1, "bad", "refused c@x.example > d@example.com"),
]


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")


def drawn(screen: Screen, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None, force_terminal=False)
    console.print(frame(screen, width, height))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_whole_screen() -> None:
    assert drawn(Screen(SUMMARY, DESTINATIONS, RECENT)) == [
        "smtpmaild on mx.example.com  14:13:20  up 3h  2 of 2 workers",
        "",
        "sessions   15 open        4.2/s opened    mx 12  submission 3",
        "messages   17,204         3.4/s accepted  0.2/s refused  0/s deferred",
        "recipients 18,000         0/s accepted  0/s refused  0/s deferred",
        "mail       123.4 MB       70.0 kB/s",
        "queue      1,204 waiting  12 in flight, the oldest 2h, 1 of 3 destinations dead",
        "",
        "SLOWEST DESTINATIONS",
        "mx:dead.example  no route                             1,201 waiting  1m  0 at it",
        "mx:slow.example  451 4.7.1 greylisted                     3 waiting  2h  0 at it",
        "mx:quick.example                                          0 waiting   -  2 at it",
        "",
        "MOST REFUSED",
        "RCPT 550 5.1.1  by local_domains.example.com (smtp.yaml:9)                   812",
        "EHLO 501  by helo_syntax                                                      40",
        "RCPT 550 5.7.1                                                                 3",
        "",
        "LAST",
        "14:13:20  accepted a@x.example > b@example.com",
        "14:13:19  refused c@x.example > d@example.com",
    ]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 50), (60, 24), (40, 24), (40, 10), (20, 24)])
def test_every_screen_is_large_enough(width: int, height: int) -> None:
    many = [destination(f"mx:d{number}.example", 5, 90.0) for number in range(100)]
    lines = drawn(Screen(SUMMARY, many, RECENT * 50), width, height)
    assert max(map(len, lines)) <= width
    assert len(lines) <= height
    assert not lines[-1].isupper(), "no title without a line"


def test_narrow_screen_has_what_matters_most() -> None:
    lines = drawn(Screen(SUMMARY, DESTINATIONS, RECENT), 40)
    assert lines[:4] == [
        "smtpmaild  14:13:20  up 3h",
        "2 of 2 workers",
        "sessions   15 open        4.2/s opened",
        "messages   17,204         3.4/s accepte…",
    ]
    assert [line.split() for line in lines if line.startswith("mx:dead")] == [
        ["mx:dead.example", "1,201", "waiting", "1m"]
    ]


def test_what_is_not_there_takes_no_room() -> None:
    quiet = {**SUMMARY, "queue": None, "numbers": {}, "rates": {}, "workers": [], "wanted": 0, "listeners": []}
    lines = drawn(Screen(quiet, [], None))
    assert len(lines) == 6
    assert drawn(Screen({**SUMMARY, "queue": {**SUMMARY["queue"], "oldest": None, "dead": 0}}, []))[6] == (
        "queue      1,204 waiting  12 in flight"
    )


@pytest.mark.parametrize(
    ("summary", "text"),
    [
        ({"not_ready": "draining"}, "not ready: draining"),
        ({"deaths": 3}, "2 of 2 workers, 3 died"),
        (
            {"workers": [{"state": "silent", "lag": 0.0}, {"state": "serving", "lag": 0.3}]},
            "1 of 2 workers, 300 ms late",
        ),
    ],
)
def test_trouble_is_in_the_first_line(summary: dict[str, Any], text: str) -> None:
    assert drawn(Screen({**SUMMARY, **summary}, []))[0].endswith(text)


@pytest.mark.parametrize("width", [80, 40])
def test_daemon_that_does_not_answer_now(width: int) -> None:
    whole, troubled = (drawn(Screen(SUMMARY, DESTINATIONS, RECENT, trouble), width) for trouble in ("", "no\x1banswer"))
    assert troubled[1] == "no\\x1banswer"
    assert [*troubled[:1], *troubled[2:]] == [*whole[:1], *whole[2:]]


def test_hostile_text_is_text() -> None:
    hostile = "\x1b[2J[bold red]x[/]\u202e\n"
    lines = drawn(
        Screen(
            {**SUMMARY, "hostname": hostile, "numbers": {"refusals": {hostile: {hostile: {hostile: 1}}}}},
            [destination(hostile, 1, 5.0, last=hostile)],
            [(NOW, "good", hostile)],
        ),
        width=150,
    )
    assert sum("\\x1b[2J[bold red]x[/]\\u202e\\n" in line for line in lines) == 4
    assert all(line.isprintable() for line in lines)


def test_sizes_of_small_servers() -> None:
    summary = {**SUMMARY, "numbers": {"bytes_received": 12}, "rates": {"sessions_opened": 12.3}}
    lines = drawn(Screen(summary, []))
    assert (lines[2][:38], lines[5]) == ("sessions   15 open        12/s opened ", "mail       12 B           0 B/s")
    assert os.environ["TZ"] == "UTC"
