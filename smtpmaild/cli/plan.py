"""What `smtpmaild reload --plan` prints: the verdicts on record that the configuration on disk would change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from smtpmaild.cli.options import read_rehearsed_config

if TYPE_CHECKING:
    from smtpmaild.config import Config
    from smtpmaild.forecast import Change, Decision, Forecast, Verdict


def show_plan(path: str, last: int, *, as_json: bool) -> bool:
    """Print it; True where nothing changes. A configuration with mistakes, or that fails a test, ends the process.

    last: of how many messages and sessions at most.
    """
    from smtpmaild import app
    from smtpmaild.config.mistakes import visible
    from smtpmaild.forecast import DECIDED, decisions, forecast
    from smtpmaild.history.reading import Reading

    if not path:
        raise click.UsageError("--config FILE is missing: a plan reads the configuration")
    config = read_rehearsed_config(path)
    try:
        with Reading(_history(config)) as reading:
            found = forecast(app.stage(config), decisions(reading.latest(last, DECIDED)))
    except OSError as error:
        tests = len(config.tests)
        passed = f"{tests} test{'s pass' if tests != 1 else ' passes'}" if tests else "it has no tests either"
        told = {"config": path, "tests": tests, "reason": error.strerror}
        click.echo(
            json.dumps(told) if as_json else f"{path}: no mistakes; {passed}\nno verdicts on record: {error.strerror}"
        )
        return True
    if as_json:
        click.echo(json.dumps({"config": path, **asdict(found)}, indent=2))
    else:
        click.echo("\n".join(map(visible, _lines(path, found))))
    return not found.changes


def _history(config: Config) -> str:
    if config.history is None:
        raise OSError(0, "the configuration has no `history`; `history: {}` turns it on")
    if config.logging.privacy:
        raise OSError(0, "with `logging: {privacy: true}` it has pseudonyms, of which no rule knows anything")
    return config.history.path


def _lines(path: str, found: Forecast) -> Iterator[str]:
    since = f" since {_time(found.since)}" if found.since else ""
    yield f"{path} beside {found.decisions} verdicts on record{since} ({found.kinds} different)"
    for rule, count in found.left_out.items():
        yield f"  {count} by '{rule}' cannot be tried: it looks at more than is on record"
    if not found.changes:
        yield "no verdict would change"
        return
    total = sum(change.count for change in found.changes)
    yield f"{total} verdict{' would change' if total == 1 else 's would change'}:"
    for change in found.changes:
        yield ""
        yield from _change(change)


def _change(change: Change) -> Iterator[str]:
    before, after = change.decision.verdict, change.after
    yield f"{change.count:6} x {_said(before)}  ->  {_said(after)}"
    yield f"         decided by {_by(before)}, then by {_by(after)}"
    yield f"         such as {_asked(change.decision)}"


def _said(verdict: Verdict) -> str:
    return " ".join((verdict.outcome, *((verdict.reply,) if verdict.reply else ()), *_to(verdict)))


def _to(verdict: Verdict) -> Iterator[str]:
    if verdict.goes_to:
        yield f"to {' and '.join(verdict.goes_to)}"
    if verdict.mailboxes:
        yield f"for {' and '.join(verdict.mailboxes)}"


def _by(verdict: Verdict) -> str:
    where = f" ({verdict.where})" if verdict.where else ""
    return f"'{verdict.rule}'{where}" if verdict.rule else "the protocol and its limits"


def _asked(one: Decision) -> str:
    user = f" signed in as {one.user}" if one.user else ""
    to = f" to {one.recipient}" if one.recipient else ""
    return f"{one.client or 'this machine'}{user} at {one.listener}, <{one.sender}>{to}, {_time(one.at)}"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
