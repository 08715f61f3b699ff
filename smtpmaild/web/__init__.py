"""HTTP for the operator's eyes: what the status page, /metrics and the inbox of `smtpmaild dev` are served with.

`serving.py` runs a starlette application beside the mail, in the loop that is there; `guard.py` stands in front of
every answer; `files.py` has the files of a page, `events.py` what it is told live. Nothing here knows what is shown.

starlette and uvicorn come with the extra `web`. This module and `presence.py` import without them.
"""
