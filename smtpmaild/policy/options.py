"""What the options of every policy have in common. A policy's own options are a class derived from this one."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from smtpmaild.policy import Mode


class PolicyOptions(BaseModel):
    """What the configuration file accepts under `policies: <name>:`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode = Field(
        Mode.ENFORCE,
        description="enforce: its verdicts count. monitor: it only logs what it would have said. off: it is not asked.",
    )
