"""The client session: dialogues with servers good and bad, and any cut of what a server says."""

from __future__ import annotations

import pytest
from client_dialogues import ACTIONS, Player, mailing, shown
from hypothesis import given, settings
from hypothesis import strategies as st
from session_driver import Driver

from smtpmaild.smtp.client import BodyDue, Challenge, ClientSession, Closed, Event, Failed, Phase, Ready, Sent
from smtpmaild.smtp.events import Body
from smtpmaild.smtp.extension import EXTENSIONS, Dialect, ServerOptions
from smtpmaild.smtp.mailing import Offer
from smtpmaild.smtp.reply import OwnReply, Reply
from smtpmaild.smtp.reply_reader import LONGEST_LINE, LONGEST_REPLY, MOST_LINES

#: A server that offers nothing, and one that offers groups.
PLAIN = """
S: 220 mx.example
C: EHLO client.example
S: 250 mx.example
= Ready
"""
GROUPS = """
S: 220 mx.example
C: EHLO client.example
S: 250-mx.example
S: 250 PIPELINING
= Ready
"""
CHUNKS = """
S: 220 mx.example
C: EHLO client.example
S: 250-mx.example
S: 250-PIPELINING
S: 250 CHUNKING
= Ready
"""
TLS = """
S: 220 mx.example
C: EHLO client.example
S: 250-mx.example
S: 250 STARTTLS
= Ready
! tls
C: STARTTLS
"""
AUTH = """
S: 220 mx.example
C: EHLO client.example
S: 250-mx.example
S: 250 AUTH PLAIN LOGIN
= Ready
"""
#: A group to two recipients, of which DATA waits for its reply.
TWO = (
    GROUPS
    + """
! send <a@b> c@d e@f
C: MAIL FROM:<a@b>
C: RCPT TO:<c@d>
C: RCPT TO:<e@f>
C: DATA
"""
)

DIALOGUES = {
    "one command at a time": PLAIN
    + r"""
! send <a@b> c@d
C: MAIL FROM:<a@b>
S: 250 2.1.0 ok
C: RCPT TO:<c@d>
S: 250 2.1.5 ok
C: DATA
S: 354 go
= BodyDue
! body b"x\r\n.y\r\n"
C~ b"x\r\n..y\r\n.\r\n"
S: 250 2.0.0 queued as 7
= Sent 250 2.0.0 queued as 7
! quit
C: QUIT
S: 221 bye
= Closed
""",
    "each recipient has its reply": TWO
    + r"""
S: 250 2.1.0 ok
S: 550 5.1.1 no such user
S: 251 2.1.5 will forward
S: 354 go
= BodyDue
! body b""
C~ b".\r\n"
S: 250 2.0.0 done
= Sent 550 5.1.1 no such user | 250 2.0.0 done
""",
    "between two messages RSET, in the group": GROUPS
    + r"""
! send <> c@d
C: MAIL FROM:<>
C: RCPT TO:<c@d>
C: DATA
S: 250 ok
S: 450 4.2.0 greylisted
S: 554 5.5.1 no valid recipients
= Sent 450 4.2.0 greylisted
! send <a@b> e@f
C: RSET
C: MAIL FROM:<a@b>
C: RCPT TO:<e@f>
C: DATA
S: 250 ok
S: 250 ok
S: 250 ok
S: 354 go
= BodyDue
! body b"x"
C~ b"x\r\n.\r\n"
S: 452 4.3.1 full
= Sent 452 4.3.1 full
""",
    # RFC 2920 §3.1: DATA was in the group and taken although nobody wants the message
    "nobody wants it and DATA is taken": TWO
    + """
S: 250 ok
S: 550 no
S: 551 not here
S: 354 go
C: .
S: 554 5.5.1 no valid recipients
= Sent 550 no | 551 not here
""",
    "sender refused in a group": TWO
    + """
S: 550 5.7.1 not you
S: 503 5.5.1 MAIL first
S: 503 5.5.1 MAIL first
S: 503 5.5.1 MAIL first
= Sent 550 5.7.1 not you | 550 5.7.1 not you
""",
    "sender refused": PLAIN
    + """
! send <a@b> c@d e@f
C: MAIL FROM:<a@b>
S: 451 4.7.1 later
= Sent 451 4.7.1 later | 451 4.7.1 later
! send <a@b> c@d
C: RSET
S: 250 ok
C: MAIL FROM:<a@b>
S: 250 ok
C: RCPT TO:<c@d>
S: 550 no
= Sent 550 no
""",
    "DATA refused": TWO
    + """
S: 250 ok
S: 250 ok
S: 550 no
S: 451 4.3.0 no disk
= Sent 451 4.3.0 no disk | 550 no
""",
    "RSET refused": GROUPS
    + """
! send <a@b> c@d
C: MAIL FROM:<a@b>
C: RCPT TO:<c@d>
C: DATA
S: 250 ok
S: 550 no
S: 503 no
= Sent 550 no
! send <a@b> c@d
C: RSET
C: MAIL FROM:<a@b>
C: RCPT TO:<c@d>
C: DATA
S: 500 what
= Sent 451 4.5.0 Protocol error of the remote server: 500 what in reply to RSET
""",
    "BDAT": CHUNKS
    + r"""
! send <a@b> SIZE=4 c@d e@f
C: MAIL FROM:<a@b>
C: RCPT TO:<c@d>
C: RCPT TO:<e@f>
S: 250 ok
S: 250 ok
S: 452 4.5.3 too many
C: BDAT 4 LAST
= BodyDue
! part b".\r"
C~ b".\r"
! part b"\n."
C~ b"\n."
! end
S: 250 2.0.0 done
= Sent 250 2.0.0 done | 452 4.5.3 too many
""",
    "BDAT: nobody wants it": CHUNKS
    + """
! send <a@b> c@d
C: MAIL FROM:<a@b>
C: RCPT TO:<c@d>
S: 250 ok
S: 550 no
= Sent 550 no
""",
    "BDAT: more than was promised": CHUNKS
    + """
! send <a@b> SIZE=1 c@d
C: MAIL FROM:<a@b>
C: RCPT TO:<c@d>
S: 250 ok
S: 250 ok
C: BDAT 1 LAST
= BodyDue
! body b"ab"
= Sent 451 4.3.0 The message is longer than it was said to be
""",
    "BDAT: less than was promised": CHUNKS
    + """
! send <a@b> SIZE=3 c@d
C: MAIL FROM:<a@b>
C: RCPT TO:<c@d>
S: 250 ok
S: 250 ok
C: BDAT 3 LAST
= BodyDue
! body b"ab"
= Sent 451 4.3.0 The message is shorter than it was said to be
""",
    "parameters that are offered": """
S: 220 mx.example
C: EHLO client.example
S: 250-mx.example Hello
S: 250-pipelining
S: 250-Size 1000
S: 250-8BITMIME
S: 250-SMTPUTF8
S: 250-MT-PRIORITY
S: 250-
S: 250 DSN
= Ready
! send <a@b> SIZE=1000 BODY=8BITMIME SMTPUTF8= RET=HDRS ENVID=7 MT-PRIORITY=3 BY=9;N c@d NOTIFY=NEVER ORCPT=rfc822;x e@f
C: MAIL FROM:<a@b> SIZE=1000 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=7 MT-PRIORITY=3
C: RCPT TO:<c@d> NOTIFY=NEVER ORCPT=rfc822;x
C: RCPT TO:<e@f> NOTIFY=FAILURE,DELAY
C: DATA
T.
= Sent 451 4.4.2 Timed out while sending MAIL | 451 4.4.2 Timed out while sending MAIL
""",
    "an original recipient beyond ASCII, and no SMTPUTF8": """
S: 220 mx.example
C: EHLO client.example
S: 250-mx.example
S: 250-8BITMIME
S: 250-PIPELINING
S: 250 DSN
= Ready
! send <a@b> c@d ORCPT=utf-8;bü\\x{20}@y
C: MAIL FROM:<a@b>
C: RCPT TO:<c@d> ORCPT=utf-8;b\\x{FC}\\x{20}@y
C: DATA
T.
= Sent 451 4.4.2 Timed out while sending MAIL
""",
    "an original recipient beyond ASCII": """
S: 220 mx.example
C: EHLO client.example
S: 250-mx.example
S: 250-8BITMIME
S: 250-PIPELINING
S: 250-SMTPUTF8
S: 250 DSN
= Ready
! send <a@b> SMTPUTF8= c@d ORCPT=utf-8;bü@y
C: MAIL FROM:<a@b> SMTPUTF8
C: RCPT TO:<c@d> ORCPT=utf-8;bü@y
C: DATA
T.
= Sent 451 4.4.2 Timed out while sending MAIL
""",
    "a parameter without value": """
S: 220 mx.example
C: EHLO client.example
S: 250-mx.example
S: 250 REQUIRETLS
= Ready
! send <a@b> REQUIRETLS= c@d
C: MAIL FROM:<a@b> REQUIRETLS
S: 250 ok
C: RCPT TO:<c@d>
S.
= Sent 451 4.4.2 Lost the connection while sending RCPT
""",
    "parameters that are not offered": PLAIN
    + """
! send <a@b> RET=HDRS ENVID=7 c@d NOTIFY=NEVER
C: MAIL FROM:<a@b>
S: 250 ok
C: RCPT TO:<c@d>
S.
= Sent 451 4.4.2 Lost the connection while sending RCPT
""",
    "what cannot go there is not even tried": """
S: 220 mx.example
C: EHLO client.example
S: 250-mx.example
S: 250 SIZE 999
= Ready
! send <a@b> SIZE=1000 c@d e@f
= Sent 552 5.3.4 Message of 1000 bytes exceeds the limit of the next hop, 999 | \
552 5.3.4 Message of 1000 bytes exceeds the limit of the next hop, 999
! send <a@b> BODY=8BITMIME c@d
= Sent 554 5.6.3 The next hop does not take 8-bit messages (8BITMIME)
! send <a@b> BODY=BINARYMIME c@d
= Sent 554 5.6.3 The next hop does not take binary messages (BINARYMIME)
! send <a@b> SMTPUTF8= c@d
= Sent 550 5.6.7 The next hop does not take internationalized mail (SMTPUTF8)
! send <ä@b> c@d
= Sent 550 5.6.7 The next hop does not take internationalized mail (SMTPUTF8)
! send <a@b> REQUIRETLS= c@d
= Sent 550 5.7.30 REQUIRETLS support required
! send <a@b> ä@d
= Sent 553 5.6.7 The next hop does not take internationalized addresses (SMTPUTF8)
! send <a@b> ä@d c@d
C: MAIL FROM:<a@b> SIZE=10
S: 250 ok
C: RCPT TO:<c@d>
S: 550 no
= Sent 553 5.6.7 The next hop does not take internationalized addresses (SMTPUTF8) | 550 no
""",
    "an address beyond ASCII": """
S: 220 mx.example
C: EHLO client.example
S: 250-mx.example
S: 250 SMTPUTF8
= Ready
! send <a@b> ä@bücher.example
C: MAIL FROM:<a@b> SMTPUTF8
S: 250 ok
C: RCPT TO:<ä@bücher.example>
S: 550 5.1.1 kein ä
= Sent 550 5.1.1 kein ?
""",
    "a domain beyond ASCII": PLAIN
    + """
! send <"a b"@bücher.example> c@bücher.example ä@d
C: MAIL FROM:<"a b"@xn--bcher-kva.example>
S: 250 ok
C: RCPT TO:<c@xn--bcher-kva.example>
S: 550 no
= Sent 550 no | 553 5.6.7 The next hop does not take internationalized addresses (SMTPUTF8)
""",
    "binary": """
S: 220 mx.example
C: EHLO client.example
S: 250-mx.example
S: 250-BINARYMIME
S: 250 CHUNKING
= Ready
! send <a@b> BODY=BINARYMIME c@d
C: MAIL FROM:<a@b> BODY=BINARYMIME
S.
= Sent 451 4.4.2 Lost the connection while sending MAIL
""",
    # RFC 5321 §3.2
    "HELO where EHLO is unknown": """
S: 220 old.example
C: EHLO client.example
S: 502 what?
C: HELO client.example
S: 250-old.example
S: 250 PIPELINING is not for those who say HELO
= Ready
! send <a@b> c@d
C: MAIL FROM:<a@b>
S: 250 ok
C: RCPT TO:<c@d>
S.
= Sent 451 4.4.2 Lost the connection while sending RCPT
""",
    "HELO refused too": """
S: 220 old.example
C: EHLO client.example
S: 550 no
C: HELO client.example
S: 550 5.7.1 no
= Failed 550 5.7.1 no
! quit
C: QUIT
S: 221 bye
= Closed
""",
    "EHLO refused for now": """
S: 220 mx.example
C: EHLO client.example
S: 451 4.3.0 later
= Failed 451 4.3.0 later
""",
    "no service": """
S: 554-5.7.1 we do not know you
S: 554 5.7.1 go away
= Failed 554 5.7.1 we do not know you / go away
! quit
C: QUIT
S.
= Closed
""",
    "a greeting that is none": """
S: 250 hello
= Failed 451 4.5.0 Protocol error of the remote server: 250 hello in reply to the connection
! quit
= Closed
""",
    "no greeting": """
T.
= Failed 451 4.4.2 Timed out while waiting for the greeting
""",
    "too busy at the greeting": """
S: 421 4.3.2 mx.example too busy
= Failed 421 4.3.2 mx.example too busy
""",
    "idle, then closed": PLAIN
    + """
S: 421 4.4.2 idle too long
= Failed 421 4.4.2 idle too long
S.
""",
    "idle, then gone": PLAIN
    + """
S.
= Failed 451 4.4.2 Lost the connection while doing nothing
T.
""",
    "421 within a group": TWO
    + """
S: 250 ok
S: 550 5.1.1 no
S: 421 4.3.2 shutting down
= Sent 550 5.1.1 no | 421 4.3.2 shutting down
""",
    "lost within a group": TWO
    + """
S: 250 ok
S: 250 ok
S.
= Sent 451 4.4.2 Lost the connection while sending RCPT | 451 4.4.2 Lost the connection while sending RCPT
""",
    "lost in the message": TWO
    + """
S: 250 ok
S: 250 ok
S: 250 ok
S: 354 go
= BodyDue
! part b"half"
C~ b"half"
S.
= Sent 451 4.4.2 Lost the connection while sending the message | \
451 4.4.2 Lost the connection while sending the message
! body b"the other half"
""",
    "late after the message": TWO
    + r"""
S: 250 ok
S: 250 ok
S: 550 no
S: 354 go
= BodyDue
! body b"x\r\n"
C~ b"x\r\n.\r\n"
T.
= Sent 451 4.4.2 Timed out while waiting for the reply to the message | 550 no
""",
    "refused in the middle of the message": TWO
    + """
S: 250 ok
S: 250 ok
S: 250 ok
S: 354 go
= BodyDue
! part b"half"
C~ b"half"
S: 552 5.3.4 enough
= Sent 552 5.3.4 enough | 552 5.3.4 enough
! quit
= Closed
""",
    "accepted in the middle of the message": TWO
    + """
S: 250 ok
S: 250 ok
S: 250 ok
S: 354 go
= BodyDue
! part b"half"
C~ b"half"
S: 250 ok
= Sent 451 4.5.0 Protocol error of the remote server: 250 ok in reply to the message | \
451 4.5.0 Protocol error of the remote server: 250 ok in reply to the message
""",
    "354 is missing": TWO
    + """
S: 250 ok
S: 250 ok
S: 250 ok
S: 250 ok
= Sent 451 4.5.0 Protocol error of the remote server: 250 ok in reply to DATA | \
451 4.5.0 Protocol error of the remote server: 250 ok in reply to DATA
""",
    "354 to RCPT": TWO
    + """
S: 250 ok
S: 354 go
= Sent 451 4.5.0 Protocol error of the remote server: 354 go in reply to RCPT | \
451 4.5.0 Protocol error of the remote server: 354 go in reply to RCPT
""",
    "354 to MAIL": PLAIN
    + """
! send <a@b> c@d
C: MAIL FROM:<a@b>
S: 354 go
= Sent 451 4.5.0 Protocol error of the remote server: 354 go in reply to MAIL
""",
    "354 to the message": TWO
    + r"""
S: 250 ok
S: 550 no
S: 250 ok
S: 354 go
= BodyDue
! body b""
C~ b".\r\n"
S: 354 more
= Sent 550 no | 451 4.5.0 Protocol error of the remote server: 354 more in reply to the message
""",
    "no SMTP at all": """
S: HTTP/1.1 400 Bad Request
= Failed 451 4.5.0 Protocol error of the remote server: no SMTP reply: HTTP/1.1 400 Bad Request
""",
    "two codes in one reply": """
S: 220-mx.example
S: 250 mx.example
= Failed 451 4.5.0 Protocol error of the remote server: no SMTP reply: 250 mx.example
""",
    "codes beyond SMTP": """
S: 120 mx.example
= Failed 451 4.5.0 Protocol error of the remote server: no SMTP reply: 120 mx.example
""",
    "an enhanced code of another class is text": GROUPS
    + """
! send <a@b> c@d
C: MAIL FROM:<a@b>
C: RCPT TO:<c@d>
C: DATA
S: 250 ok
S: 550-2.1.1 no
S: 550
S: 503 5.5.1
= Sent 550 2.1.1 no /
""",
    "lines may end in LF": r"""
S~ b"220 mx.example\n"
C: EHLO client.example
S~ b"250 mx.example\n"
= Ready
""",
    "TLS": TLS
    + """
S: 220 2.0.0 go
= HandshakeDue
! secured
C: EHLO client.example
S: 250-mx.example
S: 250 PIPELINING
= Ready
""",
    "TLS refused": TLS
    + """
S: 454 4.7.0 not now
= Failed 454 4.7.0 not now
! quit
C: QUIT
S: 221 bye
= Closed
""",
    "250 to STARTTLS": TLS
    + """
S: 250 go
= Failed 451 4.5.0 Protocol error of the remote server: 250 go in reply to STARTTLS
""",
    "PLAIN": AUTH
    + r"""
! auth PLAIN b"\0user\0pass"
C: AUTH PLAIN AHVzZXIAcGFzcw==
S: 235 2.7.0 welcome
= SignedIn
""",
    "nothing of AUTH= afterwards": AUTH
    + r"""
! auth PLAIN b"\0user\0pass"
C: AUTH PLAIN AHVzZXIAcGFzcw==
S: 235 2.7.0 welcome
= SignedIn
! send <a@b.example> c@d.example
C: MAIL FROM:<a@b.example>
""",
    "an empty initial response": AUTH
    + """
! auth EXTERNAL
C: AUTH EXTERNAL =
S: 535 5.7.8 no
= Failed 535 5.7.8 no
""",
    "LOGIN": AUTH
    + """
! auth-wait LOGIN
C: AUTH LOGIN
S: 334 VXNlcm5hbWU6
= Challenge b'Username:'
! respond b"user"
C: dXNlcg==
S: 334 UGFzc3dvcmQ6
= Challenge b'Password:'
! respond b"pass"
C: cGFzcw==
S: 535 5.7.8 wrong
= Failed 535 5.7.8 wrong
""",
    "cancelled": AUTH
    + """
! auth-wait X
C: AUTH X
S: 334
= Challenge b''
! cancel
C: *
S: 501 5.7.0 as you like
= Failed 501 5.7.0 as you like
""",
    "a challenge that is not base64": AUTH
    + """
! auth-wait X
C: AUTH X
S: 334 ?
= Failed 451 4.5.0 Protocol error of the remote server: 334 ? in reply to AUTH
""",
    "a long initial response waits": AUTH
    + f"""
! auth PLAIN {b"x" * 400!r}
C: AUTH PLAIN
S: 334
C~ {b"eHh4" * 133 + b"eA==" + bytes([13, 10])!r}
S: 235 2.7.0 welcome
= SignedIn
""",
    "a long initial response is not waited for": AUTH
    + f"""
! auth PLAIN {b"x" * 400!r}
C: AUTH PLAIN
S: 504 5.5.4 no
= Failed 504 5.5.4 no
""",
}
#: What comes in one piece with a reply came before the next command. Octet by octet, nobody could tell.
HASTY_DIALOGUES = {
    "BDAT: a word behind the last reply": CHUNKS
    + """
! send <a@b> c@d
C: MAIL FROM:<a@b>
C: RCPT TO:<c@d>
S: 250 ok
S~ b"250 ok\\r\\n250 2.0.0 done\\r\\n"
= Sent 451 4.5.0 Protocol error of the remote server: it spoke out of turn: 250 2.0.0 done
""",
    "a greeting before EHLO was said": """
S~ b"220 mx.example\\r\\n250-mx"
= Failed 451 4.5.0 Protocol error of the remote server: it began a reply to no command
""",
}
LMTP_DIALOGUES = {
    "a reply for each recipient": r"""
S: 220 store.example
C: LHLO client.example
S: 250-store.example
S: 250 PIPELINING
= Ready
! send <a@b> c@d e@f g@h
C: MAIL FROM:<a@b>
C: RCPT TO:<c@d>
C: RCPT TO:<e@f>
C: RCPT TO:<g@h>
C: DATA
S: 250 ok
S: 250 ok
S: 550 5.1.1 no
S: 250 ok
S: 354 go
= BodyDue
! body b"x\r\n"
C~ b"x\r\n.\r\n"
S: 250 2.0.0 stored
S: 452 4.2.2 full
= Sent 250 2.0.0 stored | 550 5.1.1 no | 452 4.2.2 full
""",
    "lost between two replies": r"""
S: 220 store.example
C: LHLO client.example
S: 250-store.example
S: 250-CHUNKING
S: 250 PIPELINING
= Ready
! send <a@b> SIZE=3 c@d e@f
C: MAIL FROM:<a@b>
C: RCPT TO:<c@d>
C: RCPT TO:<e@f>
S: 250 ok
S: 250 ok
S: 250 ok
C: BDAT 3 LAST
= BodyDue
! body b"x\r\n"
C~ b"x\r\n"
S: 250 2.0.0 stored
S.
= Sent 250 2.0.0 stored | 451 4.4.2 Lost the connection while waiting for the reply to the message
""",
    # RFC 2033 §4.2: "the DATA command MUST fail with a 503 reply code"
    "DATA is taken for nobody": """
S: 220 store.example
C: LHLO client.example
S: 250-store.example
S: 250 PIPELINING
= Ready
! send <a@b> c@d
C: MAIL FROM:<a@b>
C: RCPT TO:<c@d>
C: DATA
S: 250 ok
S: 550 5.1.1 no
S: 354 go
= Sent 550 5.1.1 no
""",
    "LHLO is unknown": """
S: 220 mx.example
C: LHLO client.example
S: 500 what?
= Failed 500 what?
""",
}


@pytest.mark.parametrize("by_octet", [False, True], ids=["whole", "by octet"])
@pytest.mark.parametrize("name", DIALOGUES)
def test_dialogue(name: str, by_octet: bool) -> None:
    Player(by_octet=by_octet).play(DIALOGUES[name])


@pytest.mark.parametrize("by_octet", [False, True], ids=["whole", "by octet"])
@pytest.mark.parametrize("name", LMTP_DIALOGUES)
def test_lmtp_dialogue(name: str, by_octet: bool) -> None:
    Player(by_octet=by_octet, is_lmtp=True).play(LMTP_DIALOGUES[name])


@pytest.mark.parametrize("name", HASTY_DIALOGUES)
def test_hasty_dialogue(name: str) -> None:
    Player(by_octet=False).play(HASTY_DIALOGUES[name])


def after(dialogue: str) -> ClientSession:
    player = Player(by_octet=False)
    player.play(dialogue)
    return player.session


def failure(session: ClientSession) -> str:
    event = session.next_event()
    assert event is not None and not session.is_sound
    return shown(event)


def test_nothing_that_came_before_tls_is_read_within_it() -> None:
    session = after(TLS)
    session.receive_data(b"220 go\r\n250-injected")
    assert "spoke before the TLS handshake" in failure(session)


def test_early_reply_is_not_taken_for_an_answer() -> None:
    session = after(GROUPS)
    session.receive_data(b"250 in advance\r\n")
    ACTIONS["send"](session, "<a@b> c@d")
    assert failure(session).endswith("Protocol error of the remote server: it spoke out of turn: 250 in advance")
    assert session.data_to_send() == b""


def test_farewell_before_a_command_is_one() -> None:
    session = after(PLAIN)
    session.receive_data(b"421 4.4.2 idle too long\r\n")
    ACTIONS["send"](session, "<a@b> c@d")
    assert failure(session) == "Sent 421 4.4.2 idle too long"


def test_quit_is_not_said_to_a_server_that_speaks_out_of_turn() -> None:
    session = after(PLAIN)
    session.receive_data(b"250 in advance\r\n")
    session.quit()
    assert failure(session) == "Closed"
    assert session.next_event() is None


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"220 " + b"x" * LONGEST_LINE, "a reply line of more than"),
        (b"220-x\r\n" * MOST_LINES, "a reply of more than"),
        ((b"220-" + b"x" * 10_000 + b"\r\n") * (LONGEST_REPLY // 10_000 + 1), "a reply of more than"),
    ],
)
def test_endless_replies_end(octets: bytes, why: str) -> None:
    session = ClientSession("client.example")
    session.receive_data(octets)
    assert why in failure(session)


def test_longest_challenge_is_read() -> None:
    session = after(AUTH)
    session.authenticate("X", None)
    session.receive_data(b"334 " + b"AAAA" * (12_288 // 4) + b"\r\n")
    assert session.next_event() == Challenge(bytes(9216))


def test_command_cannot_hold_a_line_end() -> None:
    session = after(GROUPS)
    with pytest.raises(ValueError, match="line end"):
        session.authenticate("X\r\nQUIT", None)


def test_what_is_asked_for_when_it_is_over_fails_for_the_same_reason() -> None:
    session = after(PLAIN)
    session.connection_lost()
    for ask in (session.start_tls, lambda: session.authenticate("X", None), session.secured):
        ask()
        assert events_of(session) == [Failed(OwnReply(451, "4.4.2", "Lost the connection while doing nothing"))]
    session.send(mailing(["<a@b>", "c@d", "e@f"]))
    (sent,) = events_of(session)
    assert shown(sent) == "Sent " + " | ".join(["451 4.4.2 Lost the connection while doing nothing"] * 2)
    session.quit()
    assert events_of(session) == [Closed()]
    assert session.data_to_send() == b""


def test_driver_gives_up() -> None:
    session = after(TWO)
    session.abandon("4.3.0", "No disk")
    assert failure(session) == "Sent 451 4.3.0 No disk | 451 4.3.0 No disk"
    assert session.answered == 2


def test_unread_octets_are_counted() -> None:
    session = after(PLAIN)
    session.receive_data(b"250-x\r\n250")
    assert session.unread == 10


def test_phase_follows_the_oldest_command() -> None:
    session = ClientSession("client.example")
    phases = [session.phase]
    for said in ("220 x", "250-x\r\n250 PIPELINING", "250 x", "250 x", "354 x", "250 x"):
        if said == "250 x" and session.phase is Phase.IDLE:
            session.send(mailing(["<a@b>", "c@d"]))
            phases.append(session.phase)
        session.receive_data(said.encode() + b"\r\n")
        while session.next_event():
            pass
        phases.append(session.phase)
        if session.wants_body:
            session.end_body()
            phases.append(session.phase)
    assert phases == [
        Phase.GREETING,
        Phase.HELLO,
        Phase.IDLE,
        Phase.MAIL,
        Phase.RCPT,
        Phase.DATA,
        Phase.BODY,
        Phase.END_OF_DATA,
        Phase.IDLE,
    ]


def test_no_secret_is_shown() -> None:
    assert "secret" not in repr(Challenge(b"secret"))


@pytest.mark.parametrize(
    ("line", "largest", "most"),
    [
        ("SIZE", 0, 0),
        ("SIZE 0", 0, 0),
        ("SIZE 1000", 1000, 0),
        ("SIZE x", 0, 0),
        ("SIZE " + "9" * 21, 0, 0),
        ("LIMITS MAILMAX=5 RCPTMAX=20", 0, 20),
        ("LIMITS RCPTMAX=", 0, 0),
        ("AUTH=PLAIN", 0, 0),
    ],
)
def test_offer(line: str, largest: int, most: int) -> None:
    offer = Offer.of(Reply(250, "", f"mx.example\n{line}"))
    assert (offer.largest_message, offer.most_recipients, offer.mechanisms) == (largest, most, ())
    assert line.split()[0] in offer


def test_offer_of_mechanisms() -> None:
    offer = Offer.of(Reply(250, "", "mx.example\nauth plain Login"))
    assert offer.mechanisms == ("PLAIN", "LOGIN")


# A server that says anything: every transaction ends, with a reply for each recipient, and never a success by mistake.

SAYINGS = st.sampled_from(
    [
        b"250 ok\r\n",
        b"250-more\r\n",
        b"354 go\r\n",
        b"550 5.1.1 no\r\n",
        b"451 later\r\n",
        b"421 bye\r\n",
        b"220 hi\r\n",
        b"334 \r\n",
        b"\r\n",
        b"garbage",
        b"\x00\xff",
    ]
)


def pieces_of(octets: bytes, data: st.DataObject) -> list[bytes]:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(octets)), max_size=8)))
    return [octets[start:end] for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True)]


def events_of(session: ClientSession) -> list[Event]:
    return list(iter(session.next_event, None))


@settings(max_examples=300, deadline=None)
@given(st.lists(SAYINGS, max_size=12), st.booleans(), st.sampled_from([GROUPS, PLAIN, CHUNKS]), st.data())
def test_any_server_in_any_pieces(sayings: list[bytes], is_closed: bool, beginning: str, data: st.DataObject) -> None:
    session = after(beginning)
    session.send(mailing(["<a@b>", "c@d", "e@f"]))
    events: list[Event] = []
    for piece in pieces_of(b"".join(sayings), data):
        session.receive_data(piece)
        events += events_of(session)
    if is_closed:
        session.connection_lost()
    else:
        session.timed_out()
    events += events_of(session)
    (sent,) = (event for event in events if isinstance(event, Sent))
    assert len(sent.replies) == 2
    # The body was never written: nothing the server said can have been a success.
    assert not any(reply.is_positive for reply in sent.replies)


# Our own server: whatever the message and however the octets are cut, it arrives as it is.

BODIES = st.lists(st.sampled_from([b"a", b".", b"..", b"\r\n", b"\r\n.", b"x" * 50, b"\x00", b"\xe4"]), max_size=20)


@settings(max_examples=200, deadline=None)
@given(BODIES, st.sampled_from([(), ("CHUNKING",), ("PIPELINING",), ("CHUNKING", "PIPELINING")]), st.data())
def test_any_message_in_any_pieces(parts: list[bytes], without: tuple[str, ...], data: st.DataObject) -> None:
    options = ServerOptions("mx.example", body_line=0)
    dialect = Dialect(options, [row for row in EXTENSIONS if row.keyword not in (*without, "BINARYMIME")])
    server = Driver(options, dialect=dialect)
    client = ClientSession("client.example")
    message = b"".join(parts) + b"\r\n"
    replies: list[Reply] = []
    to_client = server.banner
    while to_client or not replies:
        for piece in pieces_of(to_client, data):
            client.receive_data(piece)
            for event in events_of(client):
                if isinstance(event, Ready):
                    client.send(mailing(["<a@b>", f"SIZE={len(message)}", "c@d"]))
                elif isinstance(event, BodyDue):
                    for part in pieces_of(message, data):
                        client.write(part)
                    client.end_body()
                elif isinstance(event, Sent):
                    replies.extend(event.replies)
        to_client = b"".join(map(server.feed, pieces_of(client.data_to_send(), data)))
    assert [reply.code for reply in replies] == [250]
    assert b"".join(event.chunk for event in server.events if isinstance(event, Body)) == message
