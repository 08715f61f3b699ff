"""The SMTP protocol without input or output (RFC 5321 and its extensions).

Bytes go in, typed events come out; replies go in, bytes come out. This room imports the standard library alone and
of it neither asyncio, socket nor os: it knows no clock, no disk, no configuration and no policy.
"""
