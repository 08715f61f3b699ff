"""TLS as values: from PEM files to SSL contexts, and from a finished handshake to what it says of the client.

settings.py what the config asks for · x509.py what we read of a certificate · contexts.py the contexts, one for each
certificate, chosen by the name that a client asks for · certificates.py keeps them up to date with their files ·
self_signed.py makes one for trying out · handshake.py what is known after it.

Knows OpenSSL and files; no socket and no loop. The bytes of a connection are encrypted in server/encryption.py.
"""
