"""`smtpmaild try`: what would happen to a message, and which line of the configuration says so."""

from __future__ import annotations

import ipaddress
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any

import click

from smtpmaild.cli.options import config_option, read_dangerous_config

if TYPE_CHECKING:
    from smtpmaild.trial import TrialStep

#: What came of it -> exit status (75 is EX_TEMPFAIL, 77 EX_NOPERM).
STATUS = {"accept": 0, "defer": 75, "reject": 77}
#: What came of it -> the first digit of the reply that says so.
DIGIT = {"defer": 4, "reject": 5}


@click.command("try", epilog="Example: smtpmaild try -c smtp.yaml --from a@b.example --to user@example.com")
@config_option
@click.option("--from", "sender", default="", metavar="ADDRESS", help="The sender; left out: the null sender <>.")
@click.option("--to", "recipients", required=True, multiple=True, metavar="ADDRESS", help="A recipient; repeatable.")
@click.option(
    "--client", default="192.0.2.1", show_default=True, metavar="IP", help='Where it comes from; "" for this machine.'
)
@click.option("--listener", metavar="NAME", help="Which listener it comes to; the first by default.")
@click.option(
    "--helo", default="client.example", show_default=True, metavar="NAME", help="What the client calls itself."
)
@click.option(
    "--tls/--no-tls",
    "with_tls",
    default=None,
    help="Encrypted or not; by default where the listener, or --user, needs it.",
)
@click.option("--user", default="", metavar="NAME", help="Who signs in; the password is taken for right.")
@click.option("--client-name", default="", metavar="NAME", help="The client's name in the DNS; nothing is looked up.")
@click.option(
    "--client-certificate", default="", metavar="NAME", help="Subject or SHA-256 fingerprint of what the client shows."
)
@click.option("--dns", "asks_dns", is_flag=True, help="Ask the DNS which servers relayed mail would go to now.")
@click.option("--message", type=click.File("rb"), help="A message to go with it, or - for standard input.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def try_(
    path: str,
    sender: str,
    recipients: tuple[str, ...],
    client: str,
    listener: str | None,
    helo: str,
    with_tls: bool | None,
    user: str,
    client_name: str,
    client_certificate: str,
    asks_dns: bool,
    message: IO[bytes] | None,
    as_json: bool,
) -> None:
    """Say what would happen to a message, and why.

    Plays a session through the daemon's own code, step by step, with stores that store nothing; no daemon need run.

    Exit status: 0 accepted, 75 deferred, 77 rejected. With several recipients the worst of them counts.
    """
    import asyncio

    from smtpmaild import app
    from smtpmaild.rehearsal import QuestionError, conditions_of, listener_of, name_of, tls_of, user_of
    from smtpmaild.trial import Question, outcome, with_crlf

    config = read_dangerous_config(path)
    content = None if message is None else with_crlf(message.read())
    try:
        door = listener_of(config, listener)
        encryption = tls_of(config, door, with_tls, user, client_certificate)
        name_in_dns = name_of(door, _printable(client_name, "--client-name"))
        login, doubt = user_of(config, door, _printable(user, "--user"))
    except QuestionError as error:
        is_refused = error.key == "tls" and with_tls is False
        option = "--no-tls" if is_refused else f"--{error.key.replace('_', '-')}"
        raise click.BadParameter(str(error), param_hint=option) from None
    if doubt:
        click.echo(f"warning: {doubt}", err=True)
    question = Question(
        _address(sender, "--from"),
        [_address(one, "--to") for one in recipients],
        _ip(client),
        _printable(helo, "--helo"),
        content,
        client_name=name_in_dns,
        tls=encryption,
        is_implicit=door.tls == "implicit",
        user=login,
    )

    async def play() -> list[TrialStep]:
        played = await app.stage(config).play(door, question)
        await app.look_ahead(config, played, asks_dns=asks_dns)
        return played

    steps = asyncio.run(play())
    for step in steps:
        step.conditions = conditions_of(config, step)
    name = door.name
    verdict = outcome(steps)
    click.echo(_as_json(steps, verdict, name) if as_json else _as_text(steps, verdict, name, client or "this machine"))
    sys.exit(STATUS[verdict])


def _address(text: str, option: str) -> str:
    return _printable(text, option).removeprefix("<").removesuffix(">")


def _printable(text: str, option: str) -> str:
    if not text.isprintable():  # a line end would begin another command
        raise click.BadParameter(f"{text!r} contains what cannot be typed", param_hint=option)
    return text


def _ip(text: str) -> str:
    """The address as the daemon knows a peer: without zone, IPv4 also where it came in over IPv6."""
    if not text:
        return ""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        raise click.BadParameter(f"{text!r} is not an IP address", param_hint="--client") from None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _as_json(steps: Sequence[TrialStep], verdict: str, listener: str) -> str:
    return json.dumps({"outcome": verdict, "listener": listener, "steps": [asdict(step) for step in steps]}, indent=2)


def _as_text(steps: Sequence[TrialStep], verdict: str, listener: str, client: str) -> str:
    lines = []
    for step in steps:
        command = f"connect from {client} to listener {listener}" if step.command == "connect" else step.command
        lines += [command, *_reply(step)]
        lines += [f"    decided by {_decided_by(step)}"] if step.rule or step.code >= 400 else []
        lines += [f"    which asks for {_shown(step.conditions)}"] if step.conditions else []
        lines += [f"    lands in {path}" for path in step.lands_in]
        lines += [f"    {line}" for hop in step.onward for line in _onward(hop)]
        lines += [f"    note: {note}" for note in step.notes]
    schedules = {hop["schedule"] for step in steps for hop in step.onward}
    tried = [f"what goes on is tried {schedule}" for schedule in schedules]
    return "\n".join([*lines, "", *tried, _conclusion(steps, verdict)])


def _onward(hop: Mapping[str, Any]) -> list[str]:
    """Where mail that travels on goes next."""
    tls = f", {hop['tls']}" if hop["tls"] else ""
    user = f", signed in as {hop['user']}" if hop["user"] else ""
    found = [f"    {server}" for server in hop["servers"]] or ([f"    {hop['trouble']}"] if hop["trouble"] else [])
    return [f"goes on to {hop['to']}{tls}{user}", *found]


def _shown(conditions: Mapping[str, object]) -> str:
    return "; ".join(
        f"{key}: {', '.join(map(str, value)) if isinstance(value, list) else str(value).lower()}"
        for key, value in conditions.items()
    )


def _reply(step: TrialStep) -> list[str]:
    """The reply; of what we offer to EHLO only how much it is, for --json has it in full."""
    first, *others = step.reply.split("\n")
    if not others or step.code >= 400:
        return [f"    {line}" for line in (first, *others)]
    return [f"    {first[:3]} {first[4:]} (and {len(others)} more lines)"]


def _decided_by(step: TrialStep) -> str:
    where = f" ({step.where})" if step.where else ""
    return f"{step.rule}{where}" if step.rule else "the protocol and its limits"


def _conclusion(steps: Sequence[TrialStep], verdict: str) -> str:
    recipients = [step for step in steps if step.command.startswith("RCPT")]
    accepted = sum(step.code < 400 for step in recipients)
    taken = f"{accepted} of {len(recipients)} recipients accepted"
    decisive = next((step for step in steps if step.code // 100 == DIGIT.get(verdict)), None)
    if decisive is not None:
        told = f"{verdict}: {decisive.command} is answered {decisive.reply.splitlines()[-1]}"
        return f"{told}; {taken}" if recipients else told
    is_whole = steps[-1].command == "message"
    return f"{verdict}: {taken}" + (", the message too" if is_whole else "; --message FILE tries a message as well")
