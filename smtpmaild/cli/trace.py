"""`smtpmaild trace`: what became of a message, and why; or of a client, an address, a user."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn

import click

from smtpmaild.cli.options import config_option, read_config

if TYPE_CHECKING:
    from smtpmaild.config import Config
    from smtpmaild.history import Event
    from smtpmaild.history.lives import Life
    from smtpmaild.history.reading import Reading
    from smtpmaild.history.story import Line

EX_NOINPUT, EX_UNAVAILABLE, EX_IOERR, EX_NOPERM = 66, 69, 74, 77
#: How often the file is looked at for what is new.
_LOOK_SECONDS = 0.5
_COLOURS = {"good": "green", "bad": "red", "waits": "yellow"}


@click.command(epilog="Example: smtpmaild trace -c smtp.yaml alice@example.com")
@click.argument("wanted", required=False, metavar="[ID|MESSAGE-ID|ADDRESS|IP]")
@config_option
@click.option("--limit", type=click.IntRange(1, 1000), default=5, show_default=True, help="So many lives at most.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a line for each life; with --follow, each event.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on, until Ctrl-C.")
def trace(path: str, wanted: str | None, limit: int, as_json: bool, follow: bool) -> None:
    """Tell what happened to a message or a client, in order.

    Who connected, what was refused and by which line of the config, where a message was stored, and what became of
    each attempt to deliver it. An ID is that of a message or a session, as replies and log lines have it. For an
    address, a user, a client's IP address or network the newest messages and sessions are told; any other text is
    searched for. With --follow alone everything is told as it happens.
    """
    config = read_config(path)
    if wanted is None and not follow:
        raise click.UsageError("say what: an ID, a message-id, an address or an IP address; or --follow for everything")
    with _opened(config) as reading:
        cursor = reading.cursor()
        found = _tell_lives(reading, config, wanted, limit, as_json, must_be=not follow) if wanted else set()
        if follow:
            _follow(reading, cursor, found, as_json, everything=wanted is None)


def _opened(config: Config) -> Reading:
    from smtpmaild.history.reading import Reading

    if config.history is None:
        _fail(EX_UNAVAILABLE, "nothing is recorded: the config has no `history`; `history: {}` turns it on")
    try:
        return Reading(config.history.path)
    except FileNotFoundError:
        _fail(EX_NOINPUT, f"there is no {config.history.path} yet: nothing has happened since `history` is on")
    except PermissionError as error:
        _fail(EX_NOPERM, f"{error.filename}: {error.strerror}")
    except OSError as error:
        _fail(EX_IOERR, f"{error.filename}: {error.strerror}")


def _tell_lives(reading: Reading, config: Config, wanted: str, limit: int, as_json: bool, *, must_be: bool) -> set[str]:
    """Print them; the names that belong to them."""
    from smtpmaild.history.lives import lives, names_for

    also = _pseudonyms(config, wanted)
    found = lives(reading, wanted, limit + 1, also)
    if not found and must_be:
        _fail(EX_NOINPUT, _nothing(reading, config, wanted))
    for number, life in enumerate(found[:limit]):
        if as_json:
            click.echo(json.dumps(_record(life)))
        else:
            click.echo("\n" if number else "", nl=False)
            _print_story(life)
    if len(found) > limit:
        click.echo(f"\nThere is more: these are the newest {limit}; --limit shows others.", err=True)
    return {name.lower() for name in (*names_for(wanted), *also)}.union(*(_ids_of(life) for life in found[:limit]))


def _pseudonyms(config: Config, wanted: str) -> set[str]:
    """What somebody is called today, where the history names nobody."""
    if not config.logging.privacy:
        return set()
    from smtpmaild.privacy.keys import read
    from smtpmaild.privacy.pseudonyms import Pseudonyms

    day = int(time.time()) // 86400
    try:
        key = read(config.logging.privacy_file, day)
    except (OSError, ValueError) as error:
        click.echo(f"Only pseudonyms and ids can be found: {error}", err=True)
        return set()
    if key is None:
        return set()
    known, inner = Pseudonyms(lambda: (day, key)), wanted.strip().removeprefix("<").removesuffix(">")
    return {known.name(inner), known.name(f"<{inner}>"), known.ip(inner), known.host(inner)} - {wanted}


def _ids_of(life: Life) -> set[str]:
    return {name for event in life.events for name in _ids_in(event)}


def _ids_in(event: Event) -> set[str]:
    """Its session, its message: what belongs to them belongs to whoever follows it."""
    return {str(event.facts[key]).lower() for key in ("queue_id", "session_id") if event.facts.get(key)}


def _nothing(reading: Reading, config: Config, wanted: str) -> str:
    assert config.history is not None
    count, oldest = reading.reach()
    since = f"{count} events since {_local(oldest):%Y-%m-%d %H:%M}" if count else "no events yet"
    days = config.history.keep / 86400
    return (
        f"nothing is known of '{_escaped(wanted)}'. {reading.path} has {since}; "
        f"it keeps {days:.3g} days or {config.history.size // 1_000_000} MB"
    )


def _follow(reading: Reading, cursor: int, names: set[str], as_json: bool, *, everything: bool) -> None:
    from smtpmaild.history.lives import concerns
    from smtpmaild.history.story import lines_of

    if not as_json:
        click.echo("Waiting for what happens next; Ctrl-C ends.", err=True)
    day = ""
    while True:
        events, cursor = reading.since(cursor)
        for event in events:
            if not (everything or concerns(event, names)):
                continue
            if not everything:
                names |= _ids_in(event)
            if as_json:
                click.echo(json.dumps(_event_record(event)))
            else:
                day = _print_lines(lines_of(event), day)
        sys.stdout.flush()
        time.sleep(_LOOK_SECONDS)


# How it looks


def _print_story(life: Life) -> None:
    from smtpmaild.history.story import story_of

    story = story_of(life)
    click.secho(_escaped(story.title), bold=True)
    _print_lines(story.lines)
    if story.end:
        click.echo(f"{'':12}  = ", nl=False)
        click.secho(_escaped(story.end), fg=_COLOURS.get(story.tone), bold=True)


def _print_lines(lines: Iterable[Line], day: str = "") -> str:
    """A line with its time, the date where it changes; the last date."""
    for line in lines:
        moment = _local(line.at)
        if f"{moment:%Y-%m-%d}" != day:
            day = f"{moment:%Y-%m-%d}"
            click.secho(f"{moment:%Y-%m-%d %Z}", dim=True)
        click.secho(f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}", dim=True, nl=False)
        click.echo("  ", nl=False)
        click.secho(_escaped(line.text), fg=_COLOURS.get(line.tone))
        for more in line.more:
            click.echo(f"{'':14}  {_escaped(more)}")
    return day


def _local(at: float) -> datetime:
    return datetime.fromtimestamp(at).astimezone()


def _escaped(text: str) -> str:
    from smtpmaild.log import escaped

    return escaped(text)


def _record(life: Life) -> dict[str, object]:
    from smtpmaild.history.story import story_of

    events = [_event_record(event) for event in life.events]
    return {"kind": life.kind, "id": life.name, "end": story_of(life).end, "events": events}


def _event_record(event: Event) -> dict[str, object]:
    at = datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds")
    return {"number": event.number, "time": at, "event": event.name, **event.facts}


def _fail(status: int, message: str) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(status)
