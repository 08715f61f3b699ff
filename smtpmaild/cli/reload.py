"""`smtpmaild reload`: has the running daemon read its configuration again, and says what came or would come of it."""

from __future__ import annotations

import sys

import click

from smtpmaild.cli.plan import show_plan
from smtpmaild.cli.shown import plain
from smtpmaild.cli.steering import EX_CONFIG, control_socket, socket_options, troubles

EX_CHANGES = 1


@click.command("reload", epilog="Example: smtpmaild reload --config smtp.yaml")
@socket_options
@click.option("--plan", "with_plan", is_flag=True, help="Print which verdicts on record would change, and stop there.")
@click.option("--apply", "applies", is_flag=True, help="With --plan: reload after it was printed.")
@click.option(
    "--last", type=click.IntRange(1), default=10_000, show_default=True, help="With --plan: of so many events at most."
)
@click.option("--json", "as_json", is_flag=True, help="With --plan: print JSON.")
def reload_(config: str, socket: str | None, with_plan: bool, applies: bool, last: int, as_json: bool) -> None:
    """Have the daemon read its configuration again.

    Waits until it serves by it, and prints what has changed. A configuration with mistakes is refused: they are
    printed, and the daemon goes on as it was. Sessions that are open end on the configuration they began with.

    With --plan the daemon is left alone: the configuration on disk is asked what it would have said to the mail on
    record (`history`), and the verdicts that would be others are printed.

    Exit status: 0 it serves by the new one, 69 none is running, 75 its workers do not serve yet or it does not answer,
    77 you may not, 78 refused. With --plan: 0 no verdict would change, 1 some would, 78 mistakes or failed tests.
    """
    if applies and not with_plan:
        raise click.UsageError("--apply goes with --plan; without it a reload applies at once")
    if with_plan:
        is_same = show_plan(config, last, as_json=as_json)
        if not applies:
            sys.exit(0 if is_same else EX_CHANGES)
    _order(config, socket)


def _order(config: str, socket: str | None) -> None:
    from smtpmaild.control.client import ControlError, answer

    path = control_socket(config, socket)
    with troubles():
        try:
            done = answer(path, "reload")
        except ControlError as error:
            if error.status != EX_CONFIG:
                raise
            click.echo(str(error), err=True)  # mistakes with their lines, as `check` prints them
            click.echo("refused; the daemon goes on as it was", err=True)
            raise SystemExit(EX_CONFIG) from None
    for line in done["changed"] or ["nothing in the file has changed"]:
        click.echo(plain(line))
    if done["restart"]:
        click.echo(f"only a restart changes: {', '.join(done['restart'])}", err=True)
