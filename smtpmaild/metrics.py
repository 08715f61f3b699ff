"""Plain counters of one worker process, and no rendering: whoever shows them takes a snapshot.

Everything happens in the event loop's thread, so counting is `metrics.messages_accepted += 1` and nothing more.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class Metrics:
    """Counted since the process began; only sessions_open goes down again.

    sessions_refused: turned away at the door, by a limit or a policy.  sessions_timed_out: ended by a timeout.
    proxies_refused: connections without the PROXY header that is due, or from elsewhere; they are no sessions.
    messages_*: by the reply to the end of data: 2yz, 5yz, 4yz.  recipients_*: by the reply to RCPT.
    bytes_received: of messages, without dot-stuffing.  policy_errors: exceptions raised by policies and callbacks.
    tls_handshakes: finished ones; tls_handshakes_failed: all others, those of a client that went away among them.
    authentications_*: by the reply to the last line of AUTH; those that were given up are not counted.
    """

    sessions_opened: int = 0
    sessions_open: int = 0
    sessions_refused: int = 0
    sessions_timed_out: int = 0
    proxies_refused: int = 0
    messages_accepted: int = 0
    messages_refused: int = 0
    messages_deferred: int = 0
    recipients_accepted: int = 0
    recipients_refused: int = 0
    recipients_deferred: int = 0
    bytes_received: int = 0
    policy_errors: int = 0
    tls_handshakes: int = 0
    tls_handshakes_failed: int = 0
    authentications_accepted: int = 0
    authentications_refused: int = 0

    def snapshot(self) -> dict[str, int]:
        """All counters by name, as they are now."""
        return asdict(self)

    def counters(self) -> dict[str, int]:
        """Those that never go down: what they come to in several workers, ended ones included, is their sum."""
        counters = asdict(self)
        del counters["sessions_open"]
        return counters
