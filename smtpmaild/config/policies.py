"""The section `policies`: a key for each built-in policy, with the options the policy itself describes (policy/).

The model is made from the table of policies, so that a new policy is one line there and none here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model

from smtpmaild.config.section import Section
from smtpmaild.policy.builtin import BUILTIN
from smtpmaild.policy.options import PolicyOptions


class PolicySection(Section):
    """What is checked at each step of the dialogue, and how strictly."""

    def options(self) -> Mapping[str, PolicyOptions]:
        """The options of every built-in policy under its name, as build_policies takes them."""
        return dict(self)


def _fields() -> dict[str, Any]:
    return {name: (builtin.options, Field(default_factory=builtin.options)) for name, builtin in BUILTIN.items()}


if TYPE_CHECKING:
    Policies = PolicySection
else:
    Policies = create_model("Policies", __base__=PolicySection, **_fields())
