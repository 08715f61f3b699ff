"""The section `policies`: a key for each built-in policy, with the options the policy itself describes (policy/)."""

from __future__ import annotations

from smtpmaild.config.section import Section


class Policies(Section):
    """How each check is done."""
