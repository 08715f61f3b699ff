"""`smtpmaild queue`: what waits to travel on, and what people do to it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from smtpmaild.cli.options import config_option, read_config

if TYPE_CHECKING:
    from smtpmaild.config import Config
    from smtpmaild.queue import Entry, Query
    from smtpmaild.queue.shards import Shards

EX_DATAERR, EX_NOINPUT, EX_IOERR = 65, 66, 74
#: How much of a message `show` prints.
_MOST_HEADER = 64 * 1024
_COPY_AT_ONCE = 1024 * 1024
_STATES = ("queued", "in delivery", "deferred", "held", "delivered", "bounced", "expired")
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))
_WIDTHS = "{:18}  {:11}  {:>4}  {:>5}  {:>5}  {:>7}  {}"
Command = TypeVar("Command", bound=Callable[..., Any])


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: smtpmaild queue list -c smtp.yaml --state deferred",
)
def queue() -> None:
    """See and change what waits to travel on.

    Works while the daemon runs and while it does not; a running daemon sees a change within a second. Who changed what,
    and why, is written to changes.log in the directory of the queue.
    """


def filters(command: Command) -> Command:
    """Which messages and recipients."""
    options = (
        click.argument("ids", nargs=-1, metavar="[ID]..."),
        click.option("--sender", metavar="ADDRESS", help='Of this sender; "" is the null sender.'),
        click.option("--recipient", default="", metavar="ADDRESS", help="To this recipient."),
        click.option("--domain", default="", metavar="NAME", help="To recipients in this domain."),
        click.option("--state", "states", multiple=True, type=click.Choice(_STATES), help="In this state; repeatable."),
        click.option("--older-than", metavar="AGE", help="Received so long ago, as 30m or 4d."),
        click.option("--limit", type=click.IntRange(0), default=0, metavar="N", help="So many messages at most."),
        config_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def json_option(command: Command) -> Command:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, a line for each message.")(command)


def change_options(command: Command) -> Command:
    """What every change takes."""
    why = click.option("--why", default="", metavar="TEXT", help="The reason, for changes.log.")
    return why(click.option("--all", "for_all", is_flag=True, help="Without any filter: all of them.")(command))


@queue.command("list", epilog="Example: smtpmaild queue list -c smtp.yaml --older-than 4h")
@filters
@json_option
def list_(path: str, as_json: bool, **chosen: Any) -> None:
    """List what waits, a line for each recipient, the oldest message first."""
    from smtpmaild.queue.records import to_record

    shards, now, count = _shards(read_config(path)), time.time(), 0
    with _troubles():
        for message, recipients in shards.find(_query(chosen, now)):
            if as_json:
                click.echo(json.dumps(to_record(message, recipients)))
                continue
            if not count:
                click.echo(_WIDTHS.format("ID", "STATE", "AGE", "NEXT", "TRIES", "SIZE", "SENDER > RECIPIENT"))
            count += 1
            for one in recipients:
                waits = one.state.value in ("queued", "deferred")
                who = f"{message.reverse_path.text or '<>'} > {one.address.text}"
                said = f"  ({one.last})" if one.last else ""
                click.echo(
                    _WIDTHS.format(
                        message.queue_id,
                        one.state.value,
                        _span(now - message.received_at),
                        _span(one.next_attempt - now) if waits else "-",
                        one.attempts,
                        _size(message.body.size),
                        who + said,
                    )
                )
    if not as_json:
        click.echo(f"{count} messages" if count != 1 else "1 message", err=True)


@queue.command("show", epilog="Example: smtpmaild queue show -c smtp.yaml 0659F0C8A2B4E1A2F3")
@click.argument("queue_id", metavar="ID")
@config_option
@json_option
def show(path: str, queue_id: str, as_json: bool) -> None:
    """Show one message: everything that is known of it, and its header."""
    from smtpmaild.queue.records import to_record

    message, recipients = _one(_shards(read_config(path)), queue_id)
    record = to_record(message, recipients)
    with _troubles(), message.body.open() as source:
        head = source.read(_MOST_HEADER)
    header = head.partition(b"\r\n\r\n")[0].replace(b"\r\n", b"\n").decode("utf-8", "replace")
    if as_json:
        click.echo(json.dumps({**record, "header": header}))
        return
    for key, value in record.items():
        if key != "recipients":
            click.echo(f"{key + ':':14}{value if value != {} else ''}")
    for one in record["recipients"]:  # type: ignore[attr-defined]
        click.echo()
        for key, value in one.items():
            click.echo(f"{key + ':':14}{value if value != {} else ''}")
    click.echo()
    click.echo("".join(character if character.isprintable() or character == "\n" else "?" for character in header))


@queue.command("stats", epilog="Example: smtpmaild queue stats -c smtp.yaml")
@filters
@json_option
def stats(path: str, as_json: bool, **chosen: Any) -> None:
    """Count what waits, by destination, the deepest first."""
    from dataclasses import asdict

    shards, now = _shards(read_config(path)), time.time()
    with _troubles():
        depths = shards.depths(_query(chosen, now))
    for name, depth in sorted(depths.items(), key=lambda item: -item[1].messages):
        if as_json:
            by_state = {state.value: count for state, count in depth.states.items()}
            due = depth.next_attempt if depth.next_attempt < float("inf") else None
            click.echo(json.dumps({"destination": name, **asdict(depth), "states": by_state, "next_attempt": due}))
            continue
        states = ", ".join(f"{count} {state.value}" for state, count in depth.states.items())
        oldest = _span(now - depth.oldest)
        said = f"; {depth.last}" if depth.last else ""
        click.echo(f"{name}: {depth.messages} messages, {_size(depth.size)}, oldest {oldest}; {states}{said}")


def _change(verb: str, help_text: str, question: str = "") -> None:
    @queue.command(verb, help=help_text, epilog=f"Example: smtpmaild queue {verb} -c smtp.yaml --domain example.net")
    @filters
    @change_options
    @click.option("--yes", is_flag=True, hidden=not question, help="Do not ask.")
    def command(path: str, why: str, for_all: bool, yes: bool, **chosen: Any) -> None:
        from smtpmaild.config.rights import rights_of
        from smtpmaild.queue.shards import CHANGE_BY_VERB

        config = read_config(path)
        now = time.time()
        query = _query(chosen, now)
        if not for_all and not any(value for key, value in chosen.items() if key != "limit") and query.sender is None:
            raise click.UsageError("say which: an ID or a filter, or --all")
        shards = _shards(config)
        if question and not yes:
            states = [state for state in CHANGE_BY_VERB[verb].states if not query.states or state in query.states]
            with _troubles():
                count = sum(len(each) for message, each in shards.find(_with_states(query, states)))
            click.confirm(question.format(count), abort=True, err=True)
        with _troubles(), rights_of(config.user, config.group):
            changed = shards.change(verb, query, why, now)
        for message, recipients in changed:
            for one in recipients:
                click.echo(f"{verb}: {message.queue_id} {message.reverse_path.text or '<>'} > {one.address.text}")
        count = sum(len(recipients) for _, recipients in changed)
        click.echo(f"{count} recipients" if count != 1 else "1 recipient", err=True)


_change(
    "retry",
    "Try deferred mail now instead of later. Where nobody answered a moment ago the next probe decides, within five "
    "minutes.",
)
_change("hold", "Keep mail back until it is released. What is in delivery is left alone.")
_change("release", "Let held mail go on, at once.")
_change("drop", "Forget mail; nobody is told. What is in delivery is left alone.", "Drop {} recipients for good?")
_change("bounce", "Return mail to its senders; --why is what they read.", "Return {} recipients to their senders?")


@queue.command("export", epilog="Example: smtpmaild queue export -c smtp.yaml 0659F0C8A2B4E1A2F3 --to backup")
@filters
@click.option(
    "--to", "directory", type=click.Path(file_okay=False), help="Write ID.eml and ID.json into this directory."
)
def export(path: str, directory: str | None, **chosen: Any) -> None:
    """Copy messages out of the queue, where they stay: into a directory, or one message to standard output."""
    import os

    from smtpmaild.queue.records import to_record

    shards = _shards(read_config(path))
    with _troubles():
        found = shards.find(_query(chosen, time.time()))
        if directory is None:
            (message, _) = _one(shards, chosen["ids"][0] if len(chosen["ids"]) == 1 else "")
            with message.body.open() as source:
                _copy(source, sys.stdout.buffer)
            return
        os.makedirs(directory, 0o700, exist_ok=True)
        for message, recipients in found:
            with message.body.open() as source, open(f"{directory}/{message.queue_id}.eml", "wb") as target:
                _copy(source, target)
            with open(f"{directory}/{message.queue_id}.json", "w", encoding="ascii") as file:
                file.write(json.dumps(to_record(message, recipients)) + "\n")
            click.echo(f"{directory}/{message.queue_id}.eml")


@queue.command("import", epilog="Example: smtpmaild queue import -c smtp.yaml backup/*.eml")
@click.argument("files", nargs=-1, required=True, metavar="FILE.eml...", type=click.Path(dir_okay=False))
@config_option
@click.option("--why", default="", metavar="TEXT", help="The reason, for changes.log.")
def import_(path: str, files: tuple[str, ...], why: str) -> None:
    """Take messages into the queue: each FILE.eml with the FILE.json beside it, as `export` and a spool write them."""
    import os

    from smtpmaild.app import route_of_mail
    from smtpmaild.config.rights import rights_of
    from smtpmaild.idn import to_ascii
    from smtpmaild.queue.body import BytesBody
    from smtpmaild.queue.records import RecordError, from_record
    from smtpmaild.smtp.address import parse_mailbox

    config = read_config(path)
    shards = _shards(config)
    route = route_of_mail(config)
    for name in files:
        try:
            with open(name, "rb") as file:
                body = BytesBody(file.read())
            with open(f"{os.path.splitext(name)[0]}.json", "rb") as file:
                record = file.read()
            entry = from_record(record, body, time.time(), lambda text: parse_mailbox(text, to_ascii), route)
        except OSError as error:
            _fail(EX_NOINPUT, f"{error.filename}: {error.strerror}")
        except RecordError as error:
            _fail(EX_DATAERR, f"{os.path.splitext(name)[0]}.json: {error}")
        with _troubles(), rights_of(config.user, config.group):
            shards.put([entry], why)
        click.echo(f"import: {entry[0].queue_id} {name}")


def _shards(config: Config) -> Shards:
    from smtpmaild.log import to_stderr
    from smtpmaild.queue.shards import Shards

    return Shards(config.queue.path, to_stderr("warning", config.logging.format)[1])


def _query(chosen: dict[str, Any], now: float) -> Query:
    from smtpmaild.config.units import parse_duration
    from smtpmaild.queue import Query, State

    received_before = 0.0
    if chosen["older_than"]:
        try:
            received_before = now - parse_duration(chosen["older_than"])
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    return Query(
        queue_ids=chosen["ids"],
        sender=chosen["sender"],
        recipient=chosen["recipient"],
        domain=chosen["domain"],
        states=[State(state) for state in chosen["states"]],
        received_before=received_before,
        limit=chosen["limit"],
    )


def _with_states(query: Query, states: Any) -> Query:
    from dataclasses import replace

    return replace(query, states=states)


def _one(shards: Shards, queue_id: str) -> Entry:
    from smtpmaild.queue import Query

    if not queue_id:
        raise click.UsageError("standard output takes one message: say which, or --to DIRECTORY")
    with _troubles():
        found = next(iter(shards.find(Query(queue_ids=[queue_id]))), None)
    if found is None:
        _fail(EX_NOINPUT, f"there is no message {queue_id} in the queue")
    return found


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    while block := source.read(_COPY_AT_ONCE):
        target.write(block)


def _span(seconds: float) -> str:
    """As people read it: 45s, 12m, 4h, 3d; "now" for what is over."""
    if seconds < 1:
        return "now"
    return next((f"{int(seconds // size)}{unit}" for size, unit in _UNITS if seconds >= size), f"{int(seconds)}s")


def _size(size: int) -> str:
    return next(
        (f"{size / unit:.1f}{name}" for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if size >= unit), str(size)
    )


@contextmanager
def _troubles() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _fail(EX_IOERR, f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _fail(status: int, message: str) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(status)
