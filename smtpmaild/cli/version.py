"""`smtpmaild version`: what runs here."""

from __future__ import annotations

import platform

import click

from smtpmaild import __version__


@click.command(epilog="Example: smtpmaild version")
def version() -> None:
    """Print the versions of what runs here, for a bug report."""
    from importlib.metadata import version as version_of

    from smtpmaild.smtp import session

    click.echo(f"smtpmaild {__version__}{'' if session.__file__.endswith('.py') else ', compiled'}")
    click.echo(f"Python {platform.python_version()} on {platform.system()} {platform.release()}")
    for package in ("uvloop", "pydantic", "structlog", "click"):
        click.echo(f"{package} {version_of(package)}")
