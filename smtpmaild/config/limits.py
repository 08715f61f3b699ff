"""The sections `limits` and `timeouts`: how much, how many, how long.

A listener may have a section of its own with what concerns its sessions (DoorLimits, DoorTimeouts); what that leaves
out comes from the section for all. The rest concerns the daemon as a whole and stands there only.
"""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from smtpmaild.config.section import Section, Whole
from smtpmaild.config.units import Duration, Size


def _without_defaults(schema: dict[str, Any]) -> None:
    """What a listener leaves out does not have the default of the key, but the value of the section for all."""
    for key in schema["properties"].values():
        key.pop("default", None)


class DoorLimits(Section):
    """Bounds on what the clients of a listener may use. Connections count in all workers together."""

    model_config = ConfigDict(json_schema_extra=_without_defaults)

    message_size: Size = Field(
        50_000_000, ge=1, description="Largest message; offered as SIZE, refused with 552 5.3.4."
    )
    recipients: Whole = Field(
        1000, ge=100, description="Recipients of one message; RFC 5321 4.5.3.1.8 wants 100 at least."
    )
    connections: Whole = Field(10_000, ge=1, description="Connections in all, then 421.")
    connections_per_ip: Whole = Field(
        50, ge=0, description="Connections from one address (in IPv6 from its /64), then 421; 0: no limit."
    )
    connections_per_network: Whole = Field(0, ge=0, description="Connections from one network, then 421; 0: no limit.")
    bad_commands: Whole = Field(20, ge=1, description="Commands of one session that were refused as wrong, then 421.")
    refused_recipients: Whole = Field(100, ge=1, description="Recipients of one session that were refused, then 421.")
    body_rate: Size = Field(
        500,
        description="Slowest a message may come in, in bytes a second over its whole length, held after its first 30 "
        "seconds; 0: no limit.",
    )


class Limits(DoorLimits):
    """Bounds on what one client, and all of them, may use. Connections count in all workers together."""

    model_config = ConfigDict(json_schema_extra=None)

    network_prefix_v4: Whole = Field(24, ge=8, le=32, description="How long the prefix of such a network is in IPv4.")
    network_prefix_v6: Whole = Field(56, ge=16, le=128, description="How long the prefix of such a network is in IPv6.")
    memory: Size = Field(
        256_000_000,
        ge=1_000_000,
        description="Memory for messages on their way in, of each worker; when it is full, DATA gets 452.",
    )


class DoorTimeouts(Section):
    """How long we wait for a client."""

    model_config = ConfigDict(json_schema_extra=_without_defaults)

    greeting: Duration = Field(300.0, gt=0, description="For the first command after the greeting.")
    command: Duration = Field(300.0, gt=0, description="For each further command.")
    data_block: Duration = Field(180.0, gt=0, description="For the next piece of a message.")
    session: Duration = Field(14_400.0, ge=0, description="For a whole session, whatever it does; 0: no limit.")
    proxy_header: Duration = Field(
        5.0, gt=0, description="For the PROXY header, where a listener has proxy_protocol; TCP may repeat it after 3 s."
    )
    tls_handshake: Duration = Field(30.0, gt=0, description="For TLS to come to stand, once it has begun.")


class Timeouts(DoorTimeouts):
    """How long we wait. The defaults are those of RFC 5321 4.5.3.2."""

    model_config = ConfigDict(json_schema_extra=None)

    drain: Duration = Field(30.0, ge=0, description="For sessions to end when the daemon stops.")
