"""Whether what the extra `web` brings is installed; asked before anything of it is imported."""

from __future__ import annotations

import importlib.util

#: What to tell somebody who needs it.
INSTALL = "pip install 'smtpmaild[web]'"
_NEEDED = ("starlette", "uvicorn", "prometheus_client")


def missing() -> str:
    """The first package of the extra that is not there; "" if all are."""
    return next((name for name in _NEEDED if importlib.util.find_spec(name) is None), "")
