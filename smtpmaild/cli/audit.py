"""`smtpmaild audit`: who can relay where, and the proof that strangers cannot."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from smtpmaild.cli.options import config_option, read_dangerous_config

EX_FOUND, EX_NOPERM = 1, 77


@click.command(epilog="Example: smtpmaild audit -c /etc/smtpmaild/smtp.yaml")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def audit(path: str, as_json: bool) -> None:
    """Say who can relay where, and prove that strangers cannot.

    Looks at the listeners, at who can send through them, at every kind of client that the rules tell apart, and at who
    can read and write the files. Nothing is changed and no network is asked. Run it as root to see all files.

    Exit status: 0 nothing found, 1 something to look at, 77 strangers can relay, 78 mistakes in the configuration.
    """
    from smtpmaild import app
    from smtpmaild.audit.report import audit as look
    from smtpmaild.audit.text import render

    found = look(app.stage(read_dangerous_config(path)))
    click.echo(json.dumps(asdict(found), indent=2) if as_json else render(found))
    if any(finding.is_relay for finding in found.findings):
        sys.exit(EX_NOPERM)
    sys.exit(EX_FOUND if found.findings else 0)
