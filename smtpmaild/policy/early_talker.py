"""Refuses clients that talk before they were greeted.

RFC 5321 §4.3.1: "the SMTP client SHOULD wait for this greeting message before sending any commands." Senders of junk
often do not. A listener's greeting delay gives them the time to show it; without one the greeting is on its way before
a client could talk, and hardly anybody is caught.
"""

from __future__ import annotations

from smtpmaild.envelope import Session
from smtpmaild.policy import Policy, Verdict
from smtpmaild.policy.options import PolicyOptions
from smtpmaild.smtp.reply import Reply

# RFC 2034 §4 wants no enhanced code in a greeting.
REFUSED = Reply(554, "", "A client waits for the greeting before it talks")


class EarlyTalkerOptions(PolicyOptions):
    """Refuse clients that talk into the greeting delay (554)."""


class EarlyTalker(Policy):
    name = "early_talker"

    def connect(self, session: Session) -> Verdict:
        return REFUSED if session.talked_early else None
