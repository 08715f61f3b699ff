"""`smtpmaild try`: what would happen to a message, and which line of the configuration says so."""

from __future__ import annotations

import ipaddress
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import IO, TYPE_CHECKING

import click

from smtpmaild.cli.options import config_option, read_config

if TYPE_CHECKING:
    from smtpmaild.receiver import Service
    from smtpmaild.trial import TrialStep

#: What came of it -> exit status (75 is EX_TEMPFAIL, 77 EX_NOPERM).
STATUS = {"accept": 0, "defer": 75, "reject": 77}


@click.command("try", epilog="Example: smtpmaild try -c smtp.yaml --from a@b.example --to user@example.com")
@config_option
@click.option("--from", "sender", default="", metavar="ADDRESS", help="The sender; left out: the null sender <>.")
@click.option("--to", "recipients", required=True, multiple=True, metavar="ADDRESS", help="A recipient; repeatable.")
@click.option(
    "--client", default="192.0.2.1", show_default=True, metavar="IP", help='Where it comes from; "" for here.'
)
@click.option("--listener", metavar="NAME", help="Which listener it comes to; the first by default.")
@click.option(
    "--helo", default="client.example", show_default=True, metavar="NAME", help="What the client calls itself."
)
@click.option("--message", type=click.File("rb"), help="A message to go with it, or - for standard input.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def try_(
    path: str,
    sender: str,
    recipients: tuple[str, ...],
    client: str,
    listener: str | None,
    helo: str,
    message: IO[bytes] | None,
    as_json: bool,
) -> None:
    """Say what the daemon would do with a message, step by step; touches nothing.

    Exit status: 0 accepted, 75 deferred, 77 rejected. With several recipients the worst of them counts.
    """
    import asyncio

    from smtpmaild.trial import Question, outcome, run, with_crlf

    content = None if message is None else with_crlf(message.read())
    question = Question(_bare(sender), [_bare(one) for one in recipients], _ip(client), helo, content)
    steps = asyncio.run(run(_service(path, listener), question))
    verdict = outcome(steps)
    click.echo(_as_json(steps, verdict) if as_json else _as_text(steps, verdict))
    sys.exit(STATUS[verdict])


def _bare(address: str) -> str:
    return address.removeprefix("<").removesuffix(">")


def _ip(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text)) if text else ""
    except ValueError:
        raise click.BadParameter(f"{text!r} is not an IP address", param_hint="--client") from None


def _service(path: str, listener: str | None) -> Service:
    from smtpmaild import app
    from smtpmaild.trial import NO_LOG

    config = read_config(path)
    doors = app.build(config, NO_LOG).doors
    name = listener or config.listeners[0].name
    if name not in doors:
        raise click.BadParameter(f"there is no listener {name!r}, only {', '.join(doors)}", param_hint="--listener")
    return doors[name].service


def _as_json(steps: Sequence[TrialStep], verdict: str) -> str:
    return json.dumps({"outcome": verdict, "steps": [asdict(step) for step in steps]}, indent=2)


def _as_text(steps: Sequence[TrialStep], verdict: str) -> str:
    lines = []
    for step in steps:
        lines.append(f"{step.command}\n    {step.reply}")
        if step.rule:
            lines.append(f"    decided by {step.rule}" + (f", {step.where}" if step.where else ""))
        lines += [f"    lands in {path}" for path in step.lands_in]
        lines += [f"    note: {note}" for note in step.notes]
    return "\n".join([*lines, verdict])
