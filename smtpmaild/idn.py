"""Internationalised domain names: the one place that knows the idna library. The engine is given this function."""

from __future__ import annotations

import idna


def to_ascii(domain: str) -> str:
    """A-labels of a domain with U-labels, by IDNA2008 (RFC 5891).

    UTS 46 maps capitals and full-width forms first, as people type them. Raises ValueError for what has no such form.
    """
    return idna.encode(domain, uts46=True).decode("ascii")
