"""The section `history`: what is remembered of sessions and messages, for `trace`, `top` and the status page."""

from __future__ import annotations

from pydantic import Field

from smtpmaild.config.paths import ConfigPath
from smtpmaild.config.section import Section
from smtpmaild.config.units import Duration, Size


class History(Section):
    """Where it is kept, and how much of it."""

    path: ConfigPath = Field(
        "var/history.sqlite", validate_default=True, description="The file, on a local disk; all workers share it."
    )
    keep: Duration = Field(7 * 86400.0, ge=60, description="What is older is forgotten.")
    size: Size = Field(
        500_000_000, ge=1_000_000, description="With more bytes than this the oldest is forgotten earlier."
    )
