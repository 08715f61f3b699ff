"""`smtpmaild queue`: what waits to travel on, and what people do to it.

Through the control socket while a daemon runs, on the files while none does: queue_access.py. Here are the words.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import click

from smtpmaild.cli.queue_access import EX_NOINPUT, Queue, open_queue, troubles
from smtpmaild.cli.shown import counted, plain, size, span
from smtpmaild.cli.steering import fail, socket_options

EX_MISSING = 1
_STATES = ("queued", "in delivery", "deferred", "held", "delivered", "bounced", "expired")
_WAITING = ("queued", "deferred")
_WIDTHS = "{:18}  {:11}  {:>4}  {:>5}  {:>5}  {:>7}  {}"
Command = TypeVar("Command", bound=Callable[..., Any])


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: smtpmaild queue list -c smtp.yaml --state deferred",
)
def queue() -> None:
    """See and change what waits to travel on.

    While the daemon runs it is asked, by its control socket; while it does not, the files are read and changed. Who
    changed what, and why, is in the log and in changes.log in the directory of the queue.
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
        socket_options,
    )
    for option in reversed(options):
        command = option(command)
    return command


def json_option(command: Command) -> Command:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, a line for each message.")(command)


def reason_option(command: Command) -> Command:
    """`--reason`."""
    return click.option(
        "--reason", "--why", "why", default="", metavar="TEXT", help="Why, for the log and for changes.log."
    )(command)


@queue.command("list", epilog="Example: smtpmaild queue list -c smtp.yaml --older-than 4h")
@filters
@json_option
def list_(config: str, socket: str | None, as_json: bool, **chosen: Any) -> None:
    """List what waits, a line for each recipient, the oldest message first."""
    now, count, octets = time.time(), 0, 0
    left = dict.fromkeys(chosen["ids"])
    with troubles():
        opened = open_queue(config, socket)
        for record in opened.find(_filters(chosen, now)):
            left.pop(record["queue_id"], None)
            if as_json:
                click.echo(json.dumps(record))
                continue
            if not count:
                click.echo(_WIDTHS.format("ID", "STATE", "AGE", "NEXT", "TRIES", "SIZE", "SENDER > RECIPIENT"))
            count += 1
            octets += record["size"]
            for one in record["recipients"]:
                click.echo(_line(record, one, now))
        if not as_json:
            click.echo(f"{counted(count, 'message')}, {size(octets)}B" if count else "no messages", err=True)
        _tell_missing(_missing(opened, left))


def _line(record: dict[str, Any], one: dict[str, Any], now: float) -> str:
    said = f"  ({one['reply']})" if one["reply"] else ""
    return _WIDTHS.format(
        record["queue_id"],
        one["state"],
        span(now - _seconds(record["received_at"])),
        span(_seconds(one["next_attempt"]) - now) if one["state"] in _WAITING else "-",
        one["attempts"],
        size(record["size"]),
        plain(f"{record['reverse_path'] or '<>'} > {one['address']}{said}"),
    )


@queue.command("show", epilog="Example: smtpmaild queue show -c smtp.yaml 0659F0C8A2B4E1A2F3")
@click.argument("queue_id", metavar="ID")
@socket_options
@json_option
def show(config: str, socket: str | None, queue_id: str, as_json: bool) -> None:
    """Show one message: everything that is known of it, and its header."""
    with troubles():
        record = open_queue(config, socket).show(queue_id)
    if as_json:
        click.echo(json.dumps(record))
        return
    recipients, header = record.pop("recipients"), record.pop("header")
    for part in (record, *recipients):
        for key, value in part.items():
            click.echo(f"{key + ':':14}{plain(str(value)) if value != {} else ''}")
        click.echo()
    click.echo("\n".join(map(plain, header.split("\n"))))


@queue.command("stats", epilog="Example: smtpmaild queue stats -c smtp.yaml")
@filters
@json_option
def stats(config: str, socket: str | None, as_json: bool, **chosen: Any) -> None:
    """Count what waits, by destination, the deepest first."""
    now = time.time()
    with troubles():
        opened = open_queue(config, socket)
        missing = _missing(opened, chosen["ids"])  # before it is counted: what is delivered meanwhile was there
        for depth in opened.stats(_filters(chosen, now)):
            click.echo(json.dumps(depth) if as_json else plain(_depth_line(depth, now)))
        _tell_missing(missing)


def _depth_line(depth: dict[str, Any], now: float) -> str:
    messages, octets, oldest = (
        counted(depth["messages"], "message"),
        f"{size(depth['size'])}B",
        span(now - depth["oldest"]),
    )
    states = ", ".join(f"{count} {state}" for state, count in depth["states"].items())
    said = f"; {depth['last']}" if depth["last"] else ""
    return f"{depth['destination']}: {messages}, {octets}, oldest {oldest}; {states}{said}"


def _change(verb: str, help_text: str, question: str = "") -> None:
    @queue.command(verb, help=help_text, epilog=f"Example: smtpmaild queue {verb} -c smtp.yaml --domain example.net")
    @filters
    @click.option("--all", "for_all", is_flag=True, help="Without any filter: all of them.")
    @reason_option
    @click.option("--yes", is_flag=True, hidden=not question, help="Do not ask.")
    def command(config: str, socket: str | None, why: str, for_all: bool, yes: bool, **chosen: Any) -> None:
        which = _filters(chosen, time.time())
        if not for_all and not any(key != "limit" for key in which):
            raise click.UsageError("say which: an ID or a filter, or --all")
        with troubles():
            opened = open_queue(config, socket)
            changed: list[dict[str, Any]] = []
            is_asked = question and not yes
            meant = opened.count(verb, which) if is_asked else 0
            if meant:
                click.confirm(question.format(counted(meant, "recipient")), abort=True, err=True)
            if meant or not is_asked:  # what comes in the next moment was not asked about
                changed = opened.change(verb, which, why)
            for one in changed:
                click.echo(plain(f"{verb}: {one['queue_id']} {one['sender'] or '<>'} > {one['recipient']}"))
            click.echo(counted(len(changed), "recipient"), err=True)
            were_there = {one["queue_id"] for one in changed}
            _tell_missing(_missing(opened, [one for one in chosen["ids"] if one not in were_there]))


_change("retry", "Try deferred mail now instead of later, also where nobody answered a moment ago.")
_change("hold", "Keep mail back until it is released. What is in delivery is left alone.")
_change("release", "Let held mail go on, at once.")
_change("drop", "Forget mail; nobody is told. What is in delivery is left alone.", "Drop {} for good?")
_change("bounce", "Return mail to its senders; --reason is what they read.", "Return {} to their senders?")


@queue.command("export", epilog="Example: smtpmaild queue export -c smtp.yaml 0659F0C8A2B4E1A2F3 --to backup")
@filters
@click.option(
    "--to", "directory", type=click.Path(file_okay=False), help="Write ID.eml and ID.json into this directory."
)
def export(config: str, socket: str | None, directory: str | None, **chosen: Any) -> None:
    """Copy messages out of the queue, where they stay: into a directory, or one message to standard output."""
    with troubles():
        opened = open_queue(config, socket)
        if directory is None:
            if len(chosen["ids"]) != 1:
                raise click.UsageError("standard output takes one message: say which, or --to DIRECTORY")
            for block in opened.export(chosen["ids"][0]):
                sys.stdout.buffer.write(block)
            return
        os.makedirs(directory, 0o700, exist_ok=True)
        left = dict.fromkeys(chosen["ids"])
        for record in opened.find(_filters(chosen, time.time())):
            left.pop(record["queue_id"], None)
            stem = f"{directory}/{record['queue_id']}"
            with open(f"{stem}.eml", "wb") as target:
                target.writelines(opened.export(record["queue_id"]))
            with open(f"{stem}.json", "w", encoding="ascii") as file:
                file.write(json.dumps(record) + "\n")
            click.echo(f"{stem}.eml")
        _tell_missing(_missing(opened, left))


@queue.command("import", epilog="Example: smtpmaild queue import -c smtp.yaml backup/*.eml")
@click.argument("files", nargs=-1, required=True, metavar="FILE.eml...", type=click.Path(dir_okay=False))
@socket_options
@reason_option
def import_(config: str, socket: str | None, files: tuple[str, ...], why: str) -> None:
    """Take messages into the queue: each FILE.eml with the FILE.json beside it, as `export` and a spool write them."""
    with troubles():
        opened = open_queue(config, socket)
    for name in files:
        stem = os.path.splitext(name)[0]
        try:
            with open(name, "rb"), open(f"{stem}.json", "rb") as file:
                record = file.read()
        except OSError as error:
            fail(EX_NOINPUT, f"{error.filename}: {error.strerror}")
        with troubles(f"{stem}.json: "):
            queue_id = opened.put(record, name, why)
        click.echo(f"import: {queue_id} {name}")


def _missing(opened: Queue, ids: Iterable[str]) -> list[str]:
    """Those of the IDs that are not in the queue. ids: without those that were there a moment ago."""
    asked = [*dict.fromkeys(ids)]
    there = {record["queue_id"] for record in opened.find({"ids": asked})} if asked else ()
    return [one for one in asked if one not in there]


def _tell_missing(missing: Sequence[str]) -> None:
    """Name the messages that are not there, and end with 1: a slip of the pen is no success."""
    for one in missing:
        click.echo(f"Error: there is no message {plain(one)} in the queue", err=True)
    if missing:
        sys.exit(EX_MISSING)


def _filters(chosen: dict[str, Any], now: float) -> dict[str, Any]:
    """What was asked for, and nothing else."""
    which = {key: chosen[key] for key in ("recipient", "domain", "limit") if chosen[key]}
    which.update({key: [*chosen[key]] for key in ("ids", "states") if chosen[key]})
    if chosen["sender"] is not None:
        which["sender"] = chosen["sender"]
    if chosen["older_than"]:
        from smtpmaild.config.units import parse_duration

        try:
            which["received_before"] = now - parse_duration(chosen["older_than"])
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    return which


def _seconds(text: str) -> float:
    """0 for never, which is at once."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0
