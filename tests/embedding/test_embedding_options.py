"""Options by name, and the log of a program that names none."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from smtpmaild.embedding.options import StandardLog, read_options
from smtpmaild.idn import to_ascii


def test_names_in_any_case() -> None:
    options = read_options({"Idle_Timeout": 5, "HOSTNAME": "a.example"})
    assert (options.idle_timeout, options.hostname) == (5, "a.example")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"timeout": 5}, "there is no option 'timeout'; there are socket, handle_in, "),
        ({"socket": None, "SOCKET": None}, "the option 'SOCKET' is given twice"),
        ({"handle_in": None}, "belong together"),
    ],
)
def test_mistakes(given: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        read_options(given)


def test_limits_reach_the_protocol() -> None:
    given = {
        "message_size": 1, "recipients": 2, "body_line": 3, "keep_bare_newlines": True, "allow_bare_lf": True,
        "bad_commands": 4, "refused_recipients": 5,
    }  # fmt: skip
    protocol = read_options(given).protocol("ESMTP", frozenset(["NOOP"]))
    assert {name: getattr(protocol, name) for name in given} == given
    assert protocol.listens == {"NOOP"}


def test_international_domains() -> None:
    assert to_ascii("FAß.example") == "xn--fa-hia.example"


def test_log_goes_to_logging(caplog: pytest.LogCaptureFixture) -> None:
    log = StandardLog()
    with caplog.at_level(logging.INFO, "smtpmaild"):
        log.info("one", a=1)
        log.warning("two")
        log.error("three")
        try:
            raise ValueError("oops")
        except ValueError:
            log.exception("four", session_id="x")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "one {'a': 1}"),
        ("WARNING", "two {}"),
        ("ERROR", "three {}"),
        ("ERROR", "four {'session_id': 'x'}"),
    ]
    assert "ValueError: oops" in caplog.text
