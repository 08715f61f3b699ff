"""Reports: who gets one, what it says, and that readers that are not ours understand it."""

from __future__ import annotations

import email
import email.policy
import json
import quopri
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from email.message import EmailMessage, Message

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queueing import NO, NOW, address, entry
from receiving import RecordingLog

from smtpmaild.envelope import BodyType
from smtpmaild.queue import QueuedMessage, QueuedRecipient, State
from smtpmaild.queue.body import FileBody
from smtpmaild.queue.delivery_status import addr_xtext, decode_xtext
from smtpmaild.queue.dsn import HEADER_LIMIT, Reports
from smtpmaild.queue.reports import Action, Told
from smtpmaild.queue.words import ENGLISH, parse
from smtpmaild.smtp.address import Address, parse_reverse_path
from smtpmaild.smtp.reply import Reply

DAY = 86400.0
REMOTE = "mx.y.example [192.0.2.25]:25"
ORIGINAL = b"Received: by x\r\nSubject: Hello\r\nX-Odd: \r\n\tfolded\r\n\r\nThe body\r\n.dot\r\n"
GREYLISTED = Reply(450, "4.2.0", "Greylisted\nfor 5 minutes")
DATE = "Tue, 14 Nov 2023 22:13:20 +0000"


def message(
    body: bytes = ORIGINAL, sender: str = "a@x.example", parameters: Mapping[str, str] | None = None
) -> QueuedMessage:
    made, _ = entry(sender=sender, body=body, queue_id="1" * 18)
    return replace(made, parameters=parameters or {}, body_type=BodyType.SEVEN_BIT)


def told(
    action: Action = Action.FAILED,
    to: str = "b@y.example",
    last: Reply | None = NO,
    remote: str = REMOTE,
    **parameters: str,
) -> Told:
    recipient = QueuedRecipient(
        0, address(to), "r", State.BOUNCED, parameters, attempts=1, attempted_at=NOW + 60, last=last, remote=remote
    )
    return Told(action, recipient)


def reports(log: RecordingLog | None = None, route: str = "relay:mx") -> Reports:
    return Reports("mx.example", lambda _: route, log or RecordingLog(), 5 * DAY, clock=lambda: NOW + 120)


def raw(about: QueuedMessage, *each: Told, using: Reports | None = None) -> bytes:
    """The one report there is."""
    ((report, _),) = (using or reports())(about, each)
    with report.body.open() as stream:
        data = stream.read()
    assert data.count(b"\n") == data.count(b"\r\n") == data.count(b"\r")
    assert max(map(len, data.split(b"\r\n"))) <= 998
    return data


def read(data: bytes) -> EmailMessage:
    found = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    assert not [part.defects for part in found.walk() if part.defects]
    return found


def parts(data: bytes) -> tuple[str, list[Message], EmailMessage]:
    """What people read, the groups of fields, and what was given back."""
    whole = read(data)
    assert whole.get_content_type() == "multipart/report"
    human, status, original = whole.iter_parts()
    assert isinstance(original, EmailMessage)
    groups = status.get_payload()
    assert isinstance(groups, list)
    text = human.get_content()
    assert isinstance(text, str)
    return text.replace("\r\n", "\n"), groups, original  # type: ignore[return-value]


def test_failure_is_told_in_full() -> None:
    data = raw(message(parameters={"ENVID": "id+2B1"}), told(ORCPT="rfc822;B+2Bx@y.example"))
    whole = read(data)
    assert {key: whole[key] for key in ("Date", "From", "To", "Subject", "Auto-Submitted")} == {
        "Date": "Tue, 14 Nov 2023 22:15:20 +0000",
        "From": "Mail Delivery System <MAILER-DAEMON@mx.example>",
        "To": "a@x.example",
        "Subject": "Your message could not be delivered",
        "Auto-Submitted": "auto-replied",
    }
    assert whole.get_param("report-type") == "delivery-status"
    assert re.fullmatch(r"<[0-9A-F]{18}@mx\.example>", whole["Message-ID"])
    text, groups, original = parts(data)
    assert f"\n<b@y.example>\n    {REMOTE} said:\n    550 5.1.1 No such user\n" in text
    assert [dict(group.items()) for group in groups] == [
        {
            "Reporting-MTA": "dns; mx.example",
            "Original-Envelope-Id": "id+1",
            "X-Smtpmaild-Queue-ID": "1" * 18,
            "Arrival-Date": DATE,
        },
        {
            "Original-Recipient": "rfc822; B+x@y.example",
            "Final-Recipient": "rfc822; b@y.example",
            "Action": "failed",
            "Status": "5.1.1",
            "Remote-MTA": "dns; mx.y.example",
            "Diagnostic-Code": "smtp; 550 5.1.1 No such user",
            "Last-Attempt-Date": "Tue, 14 Nov 2023 22:14:20 +0000",
        },
    ]
    assert original.get_content_type() == "text/rfc822-headers"
    assert original.get_content() == "Received: by x\r\nSubject: Hello\r\nX-Odd: \r\n\tfolded\r\n"


@pytest.mark.parametrize("action", [Action.FAILED, Action.DELAYED])
@pytest.mark.parametrize("original", ["", "rfc822;first@z.example"])
def test_who_wrote_to_an_alias_is_told_of_the_alias(action: Action, original: str) -> None:
    about = told(action, remote="", ORCPT=original)
    about = replace(about, recipient=replace(about.recipient, accepted_as="Sales@x.example"))
    data = raw(message(), about)
    text, (_, group), _ = parts(data)
    assert "\n<Sales@x.example>\n" in text
    assert group["Final-Recipient"] == "rfc822; Sales@x.example"
    assert group["Original-Recipient"] == (original.replace(";", "; ") or None)
    assert b"b@y.example" not in data


def test_alias_beyond_ascii_is_told_as_such() -> None:
    about = told()
    about = replace(about, recipient=replace(about.recipient, accepted_as="b\u00fcro@x.example"))
    _, (_, group), _ = parts(raw(message(), about))
    assert group["Final-Recipient"] == "utf-8; b\\x{FC}ro@x.example"


def test_report_is_ready_for_the_queue() -> None:
    log = RecordingLog()
    ((report, (recipient,)),) = reports(log)(message(), [told()])
    assert report.reverse_path.is_null
    assert report.received_at == recipient.next_attempt == NOW + 120
    assert (recipient.address, recipient.route, recipient.state) == (address("a@x.example"), "relay:mx", State.QUEUED)
    assert (report.body_type, report.is_utf8, report.parameters) == (BodyType.SEVEN_BIT, False, {})
    assert log.only("report_made") == {"queue_id": report.queue_id, "about": "1" * 18, "action": "failed"}


def test_delay_says_how_long_we_try() -> None:
    text, (_, group), _ = parts(raw(message(), told(Action.DELAYED, last=GREYLISTED)))
    assert group["Action"] == "delayed"
    assert group["Will-Retry-Until"] == "Sun, 19 Nov 2023 22:13:20 +0000"
    assert "until Sun, 19 Nov 2023 22:13:20 +0000" in text


def test_every_line_of_the_reply_is_kept() -> None:
    data = raw(message(), told(last=GREYLISTED))
    assert b"\r\nDiagnostic-Code: smtp; 450-4.2.0 Greylisted\r\n 450 4.2.0 for 5 minutes\r\n" in data
    assert b"\r\n    450-4.2.0 Greylisted\r\n    450 4.2.0 for 5 minutes\r\n" in data


@pytest.mark.parametrize(
    ("remote", "field"),
    [
        ("mx.y.example [192.0.2.25]:25", "dns; mx.y.example"),
        ("[192.0.2.25]:25", "dns; [192.0.2.25]"),
        ("/run/dovecot/lmtp", "x-unix; /run/dovecot/lmtp"),
        ("", None),
    ],
)
def test_who_said_it(remote: str, field: str | None) -> None:
    _, (_, group), _ = parts(raw(message(), told(remote=remote)))
    assert group["Remote-MTA"] == field
    assert group["Diagnostic-Code"] == f"{'smtp' if remote else 'x-smtpmaild'}; 550 5.1.1 No such user"


@pytest.mark.parametrize(
    ("action", "reply", "status"),
    [
        (Action.FAILED, Reply(554, "", "No"), "5.0.0"),
        (Action.FAILED, None, "4.0.0"),
        (Action.RELAYED, None, "2.0.0"),
    ],
)
def test_status_without_an_enhanced_code(action: Action, reply: Reply | None, status: str) -> None:
    _, (_, group), _ = parts(raw(message(), told(action, last=reply, NOTIFY="SUCCESS,FAILURE")))
    assert group["Status"] == status


def test_own_words_are_called_so_and_success_by_us_needs_none() -> None:
    failed, _, _ = parts(raw(message(), told(remote="")))
    assert "\n<b@y.example>\n    We could not go on:\n    550 5.1.1 No such user\n" in failed
    done = told(Action.DELIVERED, last=Reply(250, "2.0.0", "Ok"), remote="", NOTIFY="SUCCESS")
    delivered, _, _ = parts(raw(message(), done))
    assert "\n<b@y.example>\n    250 2.0.0 Ok\n" in delivered


def test_one_report_for_all_recipients_of_an_action() -> None:
    log = RecordingLog()
    each = [
        told(to="b@y.example"),
        told(Action.DELAYED, to="c@y.example", last=GREYLISTED),
        told(to="d@y.example"),
        told(Action.RELAYED, to="e@y.example", NOTIFY="SUCCESS"),
    ]
    made = reports(log)(message(), each)
    found = []
    for report, _ in made:
        with report.body.open() as stream:
            found.append([group["Final-Recipient"] for group in parts(stream.read())[1][1:]])
    assert found == [
        ["rfc822; b@y.example", "rfc822; d@y.example"],
        ["rfc822; c@y.example"],
        ["rfc822; e@y.example"],
    ]
    assert len({report.queue_id for report, _ in made}) == 3


@pytest.mark.parametrize(
    ("action", "notify", "is_told"),
    [
        (Action.FAILED, "", True),
        (Action.FAILED, "NEVER", False),
        (Action.FAILED, "failure,DELAY", True),
        (Action.FAILED, "DELAY", False),
        (Action.DELAYED, "", True),
        (Action.DELAYED, "FAILURE", False),
        (Action.DELAYED, "DELAY", True),
        (Action.DELIVERED, "", False),
        (Action.DELIVERED, "SUCCESS", True),
        (Action.RELAYED, "FAILURE,success", True),
        (Action.RELAYED, "NEVER", False),
    ],
)
def test_notify_decides(action: Action, notify: str, is_told: bool) -> None:
    one = told(action, NOTIFY=notify) if notify else told(action)
    assert bool(reports()(message(), [one])) is is_told


@pytest.mark.parametrize(("notify", "is_told"), [("", True), ("FAILURE", True), ("NEVER", False)])
def test_trace_is_told_unless_never(notify: str, is_told: bool) -> None:
    one = told(Action.RELAYED, NOTIFY=notify)
    assert bool(reports()(message(), [replace(one, is_traced=True)])) is is_told


def test_times_that_the_sender_set_are_told() -> None:
    _, groups, _ = parts(raw(message(parameters={"BY": "60;R", "HOLDFOR": "30"}), told()))
    assert groups[0]["Deliver-By-Date"] == "Tue, 14 Nov 2023 22:14:20 +0000"
    assert groups[0]["Future-Release-Request"] == "for;30"
    _, groups, _ = parts(raw(message(parameters={"BY": "-60;N"}), told()))  # RFC 2852 §4: it was late before it came
    assert groups[0]["Deliver-By-Date"] == "Tue, 14 Nov 2023 22:12:20 +0000"
    # RFC 2852 §5: the fields have their order; extensions come last (RFC 3464 §2.2).
    assert groups[0].keys() == ["Reporting-MTA", "Arrival-Date", "Deliver-By-Date", "X-Smtpmaild-Queue-ID"]


@pytest.mark.parametrize(
    ("parameters", "until"),
    [
        ({"HOLDFOR": "86400"}, "Mon, 20 Nov 2023 22:13:20 +0000"),  # its age counts from when it was released
        ({"BY": "3600;R"}, "Tue, 14 Nov 2023 23:13:20 +0000"),
        ({"BY": "3600;N"}, "Sun, 19 Nov 2023 22:13:20 +0000"),
        ({"BY": "999999999;R"}, "Sun, 19 Nov 2023 22:13:20 +0000"),
    ],
)
def test_how_long_it_is_tried_is_told(parameters: Mapping[str, str], until: str) -> None:
    _, (_, group), _ = parts(raw(message(parameters=parameters), told(Action.DELAYED, last=GREYLISTED)))
    assert group["Will-Retry-Until"] == until


@pytest.mark.parametrize(
    ("orcpt", "in_ascii", "in_utf8"),
    [
        ("utf-8;bü@y.example", "utf-8; b\\x{FC}@y.example", "utf-8; bü@y.example"),
        ("UTF-8;b\\x{FC}\\x{20}ü@y.example", "UTF-8; b\\x{FC}\\x{20}\\x{FC}@y.example", "UTF-8; bü ü@y.example"),
        # What is no address of the type is "copied ... without alteration".
        ("utf-8;b\\x{10}\\x{fc}", "utf-8; b\\x{10}\\x{fc}", "utf-8; b\\x{10}\\x{fc}"),
        ("utf-8;b\\x{D800}", "utf-8; b\\x{D800}", "utf-8; b\\x{D800}"),
        ("utf-8;b\\x{110000}", "utf-8; b\\x{110000}", "utf-8; b\\x{110000}"),
        ("rfc822;b\\x{FC}@y.example", "rfc822; b\\x{FC}@y.example", "rfc822; b\\x{FC}@y.example"),
    ],
)
def test_original_recipient_beyond_ascii(orcpt: str, in_ascii: str, in_utf8: str) -> None:
    """RFC 6533 §3: utf-8-addr-xtext in message/delivery-status, utf-8-address in the global form."""
    for about, shown in ((message(), in_ascii), (utf8_message(), in_utf8)):
        assert f"\r\nOriginal-Recipient: {shown}\r\n" in raw(about, told(ORCPT=orcpt)).decode()


def test_host_without_a_domain_is_not_of_the_dns() -> None:
    """RFC 3461 §6.3 (b)."""
    using = replace(reports(), hostname="box")
    assert b"\r\nReporting-MTA: x-local-hostname; box\r\n" in raw(message(), told(), using=using)


def test_delay_has_the_status_that_it_is_told_with() -> None:
    late = replace(told(Action.DELAYED, last=GREYLISTED), status="4.4.7")
    _, (_, group), _ = parts(raw(message(), late))
    assert group["Status"] == "4.4.7"
    assert group["Diagnostic-Code"].startswith("smtp; 450-4.2.0 Greylisted")


def test_report_of_what_requires_tls_requires_it_and_tells_little() -> None:
    about = message(parameters={"REQUIRETLS": "", "RET": "FULL"})
    ((report, _),) = reports()(about, [told()])
    assert report.parameters == {"REQUIRETLS": ""}
    assert parts(raw(about, told()))[2].get_content_type() == "text/rfc822-headers"


@pytest.mark.parametrize("parameters", [{"MT-PRIORITY": "4"}, {"MT-PRIORITY": "-4", "REQUIRETLS": ""}])
def test_report_is_as_urgent_as_what_it_is_about(parameters: Mapping[str, str]) -> None:
    """RFC 6710 §4.6."""
    ((report, _),) = reports()(message(parameters={**parameters, "ENVID": "1", "BY": "60;N", "HOLDFOR": "1"}), [told()])
    assert report.parameters == parameters


def test_no_report_about_a_report() -> None:
    assert reports()(message(sender=""), [told()]) == ()


def test_sender_whom_nobody_reaches_is_logged() -> None:
    log = RecordingLog()
    assert reports(log, route="")(message(), [told()]) == ()
    assert log.only("report_nowhere") == {"queue_id": "1" * 18, "sender": "a@x.example"}


# What is given back


@pytest.mark.parametrize(
    ("ret", "action", "kind"),
    [
        ("FULL", Action.FAILED, "message/rfc822"),
        ("full", Action.FAILED, "message/rfc822"),
        ("HDRS", Action.FAILED, "text/rfc822-headers"),
        ("FULL", Action.DELAYED, "text/rfc822-headers"),
    ],
)
def test_ret_decides_for_failures(ret: str, action: Action, kind: str) -> None:
    _, _, original = parts(raw(message(parameters={"RET": ret}), told(action)))
    assert original.get_content_type() == kind


@pytest.mark.parametrize("body", [ORIGINAL, b"Subject: x\r\n\r\n--=_x--\r\n\r\n\r\n", b"Subject: x\r\n\r\nno end", b""])
def test_whole_message_is_given_back_byte_by_byte(body: bytes) -> None:
    data = raw(message(body, parameters={"RET": "FULL"}), told())
    start = data.index(b"Content-Type: message/rfc822")
    assert b"\r\n\r\n" + body + b"\r\n--=_" in data[start:]


def test_eight_bits_are_given_back_as_such() -> None:
    body = "Subject: x\r\n\r\nGrüße\r\n".encode()
    ((report, _),) = reports()(message(body, parameters={"RET": "FULL"}), [told()])
    assert report.body_type is BodyType.EIGHT_BIT_MIME
    data = raw(message(body, parameters={"RET": "FULL"}), told())
    assert read(data)["Content-Transfer-Encoding"] == "8bit"
    assert body in data


@pytest.mark.parametrize(
    "body",
    [
        b"Subject: x\r\n\r\n" + b"a" * 60_000,
        b"Subject: x\r\n\r\n" + b"a" * 999,
        b"Subject: x\r\n\r\nbare\nfeed",
        b"Subject: x\r\n\r\nbare\rreturn",
        b"Subject: x\r\n\r\nnul\0",
    ],
)
def test_what_cannot_travel_is_given_back_as_its_header(body: bytes) -> None:
    _, _, original = parts(raw(message(body, parameters={"RET": "FULL"}), told()))
    assert original.get_content() == "Subject: x\r\n"


def test_binary_message_is_given_back_as_its_header() -> None:
    binary = replace(message(parameters={"RET": "FULL"}), body_type=BodyType.BINARY_MIME)
    assert parts(raw(binary, told()))[2].get_content_type() == "text/rfc822-headers"


def test_odd_header_is_encoded() -> None:
    header = "Subject: Grüße\r\nX-Long: ".encode() + b"a" * 1200
    data = raw(message(header + b"\nX-Bare: x\r\n\r\nbody"), told())
    assert data.isascii()
    original = parts(data)[2]
    assert original.get_payload(decode=True) == header + b"\r\nX-Bare: x\r\n"


def test_no_more_than_a_header_is_read() -> None:
    body = b"Subject: x\r\n" + b"X-A: " + b"a" * (2 * HEADER_LIMIT)
    data = raw(message(body), told())
    assert len(data) < 2 * HEADER_LIMIT


# Beyond ASCII


def utf8_message() -> QueuedMessage:
    made = message("Subject: Grüße\r\n\r\nbody\r\n".encode(), parameters={"RET": "FULL"})
    return replace(made, is_utf8=True, reverse_path=Address("grüße", "x.example", "grüße@x.example"))


def utf8_told() -> Told:
    one = told(ORCPT="utf-8;b\\x{FC}@y.example")
    return replace(one, recipient=replace(one.recipient, address=Address("bü", "y.example", "bü@y.example")))


def test_report_in_utf8() -> None:
    ((report, _),) = reports()(utf8_message(), [utf8_told()])
    assert report.is_utf8
    assert report.body_type is BodyType.EIGHT_BIT_MIME
    data = raw(utf8_message(), utf8_told())
    text = data.decode()
    assert "\r\nTo: <grüße@x.example>\r\n" in text
    assert "\r\nContent-Type: message/global-delivery-status\r\n" in text
    assert "\r\nFinal-Recipient: utf-8; bü@y.example\r\n" in text
    assert "\r\nContent-Type: message/global\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: Grüße\r\n" in text
    headers_only = raw(replace(utf8_message(), parameters={}), utf8_told()).decode()
    assert "\r\nContent-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n" in headers_only
    read(data)


def test_report_in_ascii_for_whom_ascii_reaches() -> None:
    """RFC 6533: the next hop to an address in ASCII need not know SMTPUTF8."""
    about = replace(utf8_message(), reverse_path=address("a@x.example"))
    ((report, _),) = reports()(about, [utf8_told()])
    assert (report.is_utf8, report.body_type) == (False, BodyType.SEVEN_BIT)
    data = raw(about, utf8_told())
    assert b"\r\nFinal-Recipient: utf-8; b\\x{FC}@y.example\r\n" in data
    original = parts(data)[2]
    assert original.get_content_type() == "text/rfc822-headers"  # RFC 6532 §3
    assert quopri.decodestring(str(original.get_payload())).decode().strip() == "Subject: Grüße"


def test_body_that_is_gone_is_not_given_back() -> None:
    log = RecordingLog()
    about = replace(message(), body=FileBody("/nowhere/at/all", 10))
    text, _, original = parts(raw(about, told(), using=reports(log)))
    assert "550 5.1.1 No such user" in text
    assert original.get_payload() == ""
    assert log.named("report_without_original")


def test_address_beyond_ascii_in_a_report_for_others() -> None:
    data = raw(message(), utf8_told())
    assert b"\r\nFinal-Recipient: utf-8; b\\x{FC}@y.example\r\n" in data
    assert b"\r\nOriginal-Recipient: utf-8; b\\x{FC}@y.example\r\n" in data
    assert "<bü@y.example>" in parts(data)[0]
    assert data.isascii()


@pytest.mark.parametrize(
    ("text", "decoded"), [("a+2Bb", "a+b"), ("+C3+BC", "ü"), ("+FC", "\u00fc"), ("ü+2B", "ü+"), ("+0D+0A", "\r\n")]
)
def test_xtext(text: str, decoded: str) -> None:
    assert decode_xtext(text) == decoded


def test_addr_xtext() -> None:
    assert addr_xtext("ü+=\\ @x") == "\\x{FC}\\x{2B}\\x{3D}\\x{5C}\\x{20}@x"


def test_other_words() -> None:
    words = parse("[failed]\nSubject: Zurück\n\nGrüße\n{recipients}\n", ENGLISH)
    data = raw(message(), told(), using=replace(reports(), words=words))
    assert data.isascii()
    assert read(data)["Subject"] == "Zurück"
    assert parts(data)[0].startswith("Grüße\n<b@y.example>")


def test_words_in_long_lines() -> None:
    words = parse("[failed]\nSubject: x\n\n" + "a " * 1000 + "\n{recipients}\n", ENGLISH)
    assert parts(raw(message(), told(), using=replace(reports(), words=words)))[0].startswith("a a a")


@settings(deadline=None)
@given(
    envelope_id=st.text("+0123456789ABCDEF\u00fcx", max_size=30),
    original=st.text("+0123456789ABCDEF;x@", max_size=30),
    texts=st.lists(st.text(max_size=600), min_size=1, max_size=3),
    remote=st.sampled_from(["", "/run/a\nb", "m [x]:1", "[x", "[1.2.3.4]:25"]),
)
def test_no_field_can_be_slipped_in(envelope_id: str, original: str, texts: Sequence[str], remote: str) -> None:
    one = told(last=Reply(550, "5.0.0", "\n".join(texts)), remote=remote, ORCPT=f"rfc822;{original}")
    _, (of_message, group), _ = parts(raw(message(parameters={"ENVID": envelope_id}), one))
    assert set(of_message) <= {"Reporting-MTA", "Original-Envelope-Id", "X-Smtpmaild-Queue-ID", "Arrival-Date"}
    assert set(group) <= {
        "Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code",
        "Last-Attempt-Date",
    }  # fmt: skip
    assert (group["Action"], group["Status"]) == ("failed", "5.0.0")


@settings(deadline=None)
@given(local=st.from_regex(r'[a-z!#+=?^~{|}]{1,60}|"([ !#-\[\]-~]|\\["\\ -~]){0,60}"', fullmatch=True))
def test_any_sender_is_addressed(local: str) -> None:
    found = parse_reverse_path(f"<{local}@x.example>")
    assert found is not None
    data = raw(replace(message(), reverse_path=found[0]), told())
    assert f"\r\nTo: <{local}@x.example>\r\n".encode() in data
    read(data)


# A reader that is neither ours nor Python's

_BOUNCE_PARSER = """
use strict; use JSON::PP; use Mail::DeliveryStatus::BounceParser;
local $/; my $bounce = Mail::DeliveryStatus::BounceParser->new(<STDIN>);
my @found = map { { email => $_->get("email"), action => $_->get("action"), status => $_->get("status"),
    std => $_->get("std_reason"), host => $_->get("host"), code => $_->get("smtp_code") } } $bounce->reports;
print encode_json({ is_bounce => $bounce->is_bounce ? 1 : 0, reports => \\@found,
                    id => $bounce->orig_message_id });
"""


@pytest.mark.debian
def test_perl_understands_it(needs_program: Callable[[str], str]) -> None:
    perl = needs_program("perl")
    if subprocess.run([perl, "-MMail::DeliveryStatus::BounceParser", "-e", "1"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("the Perl module Mail::DeliveryStatus::BounceParser is not installed")
    body = b"Message-ID: <m1@x.example>\r\nSubject: Hello\r\n\r\nBody\r\n"
    full = told(to="c@z.example", last=Reply(552, "5.2.2", "Full"))
    data = raw(message(body, parameters={"RET": "FULL"}), told(), full)
    text = data.replace(b"\r\n", b"\n")
    done = subprocess.run([perl, "-e", _BOUNCE_PARSER], input=text, capture_output=True, check=True, timeout=60)
    found = json.loads(done.stdout)
    assert found["is_bounce"] == 1
    assert found["id"] == "<m1@x.example>"
    assert [(one["email"], one["action"], one["status"]) for one in found["reports"]] == [
        ("b@y.example", "failed", "5.1.1"),
        ("c@z.example", "failed", "5.2.2"),
    ]
