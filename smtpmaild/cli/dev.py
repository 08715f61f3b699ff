"""`smtpmaild dev`: catches all mail of a program under test, and shows it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from smtpmaild.dev.failures import Failure

EX_UNAVAILABLE, EX_CANTCREAT = 69, 73
_PORT = click.IntRange(0, 65535)


@click.command(epilog="Example: smtpmaild dev --fail rcpt=451:0.1")
@click.option(
    "--smtp", type=_PORT, default=1025, show_default=True, metavar="PORT", help="Where mail is taken; 0: any port."
)
@click.option(
    "--http", type=_PORT, default=8025, show_default=True, metavar="PORT", help="Where the page is; 0: any port."
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where both listen.")
@click.option("--no-web", is_flag=True, help="No page and no API.")
@click.option(
    "--fail",
    "failures",
    multiple=True,
    metavar="STAGE=CODE[:CONDITION]",
    help="Let something fail: rcpt=451, message=drop:10%, mail=421:2x, rcpt=550:*@gone.example; repeatable. "
    "Stages: connect, helo, auth, mail, rcpt, data, message.",
)
@click.option(
    "--tls",
    type=click.Choice(["none", "optional", "required", "implicit"]),
    help="How it encrypts; the certificate is self-signed unless one is given. [default: none; optional with "
    "--certificate]",
)
@click.option("--certificate", metavar="FILE", help="A certificate to show, in PEM.")
@click.option("--key", metavar="FILE", help="Its private key, if that is in another file.")
@click.option(
    "--auth",
    type=click.Choice(["none", "optional", "required"]),
    default="optional",
    show_default=True,
    help="Whether clients may or must sign in; any login is right.",
)
@click.option("--keep", type=click.IntRange(1), default=1000, show_default=True, help="Messages at most.")
@click.option(
    "--memory", type=click.IntRange(1), default=256, show_default=True, metavar="MB", help="Megabytes of them."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: where it listens, then each message.")
def dev(
    smtp: int,
    http: int,
    host: str,
    no_web: bool,
    failures: tuple[str, ...],
    tls: str | None,
    certificate: str | None,
    key: str | None,
    auth: str,
    keep: int,
    memory: int,
    as_json: bool,
) -> None:
    """Catch all mail and show it in a web page; send nothing on.

    Needs no configuration. Every sender, recipient and login is taken; what was caught is in memory and gone when it
    ends.
    """
    if key and not certificate:
        raise click.UsageError("--key goes with --certificate")
    chosen = [_failure(text) for text in failures]
    if not no_web:
        from smtpmaild.web import presence

        if missing := presence.missing():
            click.echo(f"the page needs {missing}: {presence.INSTALL}, or go without it by --no-web", err=True)
            sys.exit(EX_UNAVAILABLE)
    import asyncio

    from smtpmaild import log as logging
    from smtpmaild.dev.catcher import Settings
    from smtpmaild.dev.inbox import Bounds
    from smtpmaild.dev.running import Wishes, run
    from smtpmaild.server.sockets import SocketError
    from smtpmaild.tls.settings import CertificateFiles, TlsError

    files = CertificateFiles(certificate, key or certificate) if certificate else None
    octets = memory * 1_000_000
    settings = Settings(
        host,
        smtp,
        tls=tls or ("optional" if files else "none"),  # type: ignore[arg-type]  # click has looked
        certificate=files,
        auth=auth,  # type: ignore[arg-type]  # here too
    )
    wishes = Wishes(settings, Bounds(keep, octets, octets // 2), None if no_web else http, chosen, as_json)
    _, log = logging.to_stderr("warning")
    try:
        asyncio.run(run(wishes, log, logging.escaped, click.echo))
    except (SocketError, TlsError) as error:
        click.echo(f"smtpmaild dev: {error}", err=True)
        sys.exit(EX_CANTCREAT)


def _failure(text: str) -> Failure:
    from smtpmaild.dev.failures import parse

    try:
        return parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--fail") from None
