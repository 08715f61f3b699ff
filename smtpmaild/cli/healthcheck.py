"""`smtpmaild healthcheck`: is the daemon of this configuration answering? For containers and monitors."""

from __future__ import annotations

import sys
from operator import itemgetter

import click

from smtpmaild.cli.options import config_option, read_config

EX_UNAVAILABLE = 69


@click.command(epilog="Example: smtpmaild healthcheck --config smtp.yaml")
@config_option
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the banner, beyond the greeting_delay.",
)
def healthcheck(path: str, timeout: float) -> None:
    """Connect to the daemon and wait for its greeting.

    Exit status: 0 if a listener of the configuration greets with 220, else 69. One with proxy_protocol is asked only
    if there is no other, and must have the address of this machine among its trusted_proxies.
    """
    from smtpmaild.config.sockets import InheritedSocket
    from smtpmaild.server.probe import probe

    config = read_config(path)
    reachable = [
        (listener.proxy_protocol, listener.tls == "implicit", listener.greeting_delay, str(address))
        for listener in config.listeners
        for address in listener.listen
        if not isinstance(address, InheritedSocket)
    ]
    if not reachable:
        click.echo("every listener is an inherited socket, whose address the configuration does not say", err=True)
        sys.exit(EX_UNAVAILABLE)
    as_proxy, encrypted, delay, address = min(reachable, key=itemgetter(0, 1, 2))
    answer = probe(address, delay + timeout, as_proxy=as_proxy, encrypted=encrypted)
    click.echo(f"{address}: {answer}")
    if not answer.startswith("220"):
        sys.exit(EX_UNAVAILABLE)
