"""The grammar of paths: tables of what peers write, and a slow parser written rule by rule from the RFC's ABNF."""

from __future__ import annotations

import idna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpmaild.smtp.address import (
    NULL_REVERSE_PATH,
    Address,
    is_domain,
    mailbox,
    normal_domain,
    normal_literal,
    parse_forward_path,
    parse_mailbox,
    parse_reverse_path,
)


def to_ascii(domain: str) -> str:
    return idna.encode(domain, uts46=True).decode()


PATHS = [
    # the plain case; the domain is compared in lower case, the local part is not ours to fold
    ("<User@Example.COM>", "User", "example.com", "User@Example.COM"),
    # every special character of atext
    ("<!#$%&'*+-/=?^_`{|}~@a>", "!#$%&'*+-/=?^_`{|}~", "a", "!#$%&'*+-/=?^_`{|}~@a"),
    ("<a.b.c@x.y>", "a.b.c", "x.y", "a.b.c@x.y"),
    # quotes and backslashes are notation, not part of the local part
    (r'<"a b"@x>', "a b", "x", r'"a b"@x'),
    (r'<"a\"b\\c"@x>', r'a"b\c', "x", r'"a\"b\\c"@x'),
    (r'<"\a"@x>', "a", "x", r'"\a"@x'),
    # within quotes nothing ends the path
    ('<"a@b>,:<"@x>', "a@b>,:<", "x", '"a@b>,:<"@x'),
    ('<"..."@x>', "...", "x", '"..."@x'),
    # Quoted-string = DQUOTE *QcontentSMTP DQUOTE: it may be empty, and is still no null sender
    ('<""@x>', "", "x", '""@x'),
    # source routes are read and dropped (RFC 5321 §4.1.2, appendix C)
    ("<@a:u@x>", "u", "x", "u@x"),
    ("<@a.b,@c.d:u@x>", "u", "x", "u@x"),
    # address literals, in one spelling for one address
    ("<u@[192.0.2.1]>", "u", "[192.0.2.1]", "u@[192.0.2.1]"),
    ("<u@[IPv6:2001:DB8:0:0:0:0:0:1]>", "u", "[IPv6:2001:db8::1]", "u@[IPv6:2001:DB8:0:0:0:0:0:1]"),
    ("<u@[ipv6:::1]>", "u", "[IPv6:::1]", "u@[ipv6:::1]"),
    # host names in the field have underscores; digits may come first; hyphens stand inside
    ("<u@my_host.1a.x-y>", "u", "my_host.1a.x-y", "u@my_host.1a.x-y"),
    # a label of 63 octets
    (f"<u@{'a' * 63}.x>", "u", "a" * 63 + ".x", f"u@{'a' * 63}.x"),
    # RFC 6531: UTF-8 in both halves, the domain as A-labels of IDNA2008
    ("<Jos\u00e9@fa\u00df.de>", "Jos\u00e9", "xn--fa-hia.de", "Jos\u00e9@fa\u00df.de"),
    ('<"\u00e9 \u00e9"@B\u00dcCHER.example>', "\u00e9 \u00e9", "xn--bcher-kva.example", None),
]


@pytest.mark.parametrize(("path", "local_part", "domain", "text"), PATHS)
def test_path(path: str, local_part: str, domain: str, text: str | None) -> None:
    for parse in (parse_reverse_path, parse_forward_path):
        found = parse(path + " SIZE=1", to_ascii)
        assert found is not None
        address, tail = found
        assert (address.local_part, address.domain) == (local_part, domain)
        assert address.text == (path[1:-1] if text is None else text)
        assert str(address) == address.text
        assert tail == " SIZE=1"
        assert not address.is_null
        assert address.is_ascii == address.text.isascii()


NO_PATHS = [
    "",
    "u@x",  # angle brackets are not optional
    "<u@x",
    "u@x>",
    " <u@x>",  # blanks are the caller's business
    "< u@x>",
    "<u@x >",
    "<u>",  # only postmaster has no domain
    "<u@>",
    "<@x>",
    "<@a:>",  # a route to nowhere
    "<a:u@x>",  # a route begins with "@"
    "<@a,b:u@x>",
    "<@a @b:u@x>",
    "<u@x@y>",
    "<.u@x>",  # Dot-string: no dot at either end, no two together
    "<u.@x>",
    "<u..u@x>",
    "<u u@x>",
    "<u\\@u@x>",  # a quoted-pair stands in quotes only
    '<"u@x>',
    '<"u"u@x>',
    '<"u".u@x>',  # word.word is RFC 5322, not RFC 5321
    '<"u\\"@x>',
    '<"\t"@x>',
    '<"\\\t"@x>',
    '<"\\\u00e9"@x>',  # quoted-pairSMTP is ASCII (RFC 6531 leaves it so)
    "<u\x00@x>",
    "<u\x7f@x>",
    "<u\x85@x>",  # C1 controls are valid UTF-8 and move a terminal's cursor
    '<"\x9b"@x>',
    "<u@-x>",  # sub-domain = Let-dig [Ldh-str]
    "<u@x->",
    "<u@.x>",
    "<u@x.>",  # SMTP has no trailing dot
    "<u@x..y>",
    f"<u@{'a' * 64}>",
    f"<u@{'a.' * 127}aa>",  # 256 octets
    "<u@[192.0.2]>",
    "<u@[192.0.2.256]>",
    "<u@[192.0.2.1.1]>",
    "<u@[192.0.2.01]>",  # is it octal? nobody knows
    "<u@[\u0661.2.3.4]>",  # a digit, but no ASCII
    "<u@[192.0.2.1/24]>",
    "<u@[2001:db8::1]>",  # the tag is missing
    "<u@[IPv6:]>",
    "<u@[IPv6:1:2:3]>",
    "<u@[IPv6:1::2::3]>",
    "<u@[IPv6:fe80::1%eth0]>",
    "<u@[IPv6:::1/64]>",
    "<u@[IPv4:192.0.2.1]>",  # no such tag is registered
    "<u@[x:y]>",
    "<u@[]>",
    "<u@[192.0.2.1]",
    "<u@\u00e9..x>",  # no A-label for an empty label
    "<u@\u2603->",
]


@pytest.mark.parametrize("path", NO_PATHS)
def test_no_path(path: str) -> None:
    assert parse_reverse_path(path, to_ascii) is None
    assert parse_forward_path(path, to_ascii) is None


def test_null_reverse_path() -> None:
    assert parse_reverse_path("<> BODY=7BIT") == (NULL_REVERSE_PATH, " BODY=7BIT")
    assert NULL_REVERSE_PATH.is_null
    assert parse_forward_path("<>") is None


@pytest.mark.parametrize("text", ["postmaster", "Postmaster", "POSTMASTER"])
def test_postmaster_needs_no_domain(text: str) -> None:
    found = parse_forward_path(f"<{text}> X=Y")
    assert found == (Address("postmaster", "", text), " X=Y")
    assert found[0].text == text
    assert parse_reverse_path(f"<{text}>") is None, "only as a recipient"


def test_postmaster_is_spelled_in_ascii() -> None:
    assert parse_forward_path("<po\u017ftmaster>") is None, "U+017F is an s to a careless comparison"


def test_without_idna_no_domain_beyond_ascii() -> None:
    assert parse_forward_path("<u@\u00e9.example>") is None


def test_addresses_are_compared_by_meaning() -> None:
    assert Address("u", "x", "u@X") == Address("u", "x", "u@x")
    assert Address("u", "x", "u@x") != Address("U", "x", "u@x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("u@x", "u@x"),
        ('"a:b"@x', '"a:b"@x'),
        ("u@[IPv6:::1]", "u@[IPv6:::1]"),
        ("@a:u@x", None),  # a route is no mailbox
        ("a:b@x", None),
        ("u@x>", None),
        ("u@x> <u@x", None),
        ("postmaster", None),
        ("", None),
    ],
)
def test_mailbox(text: str, expected: str | None) -> None:
    found = parse_mailbox(text)
    assert (found.text if found else None) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", True),
        ("a.b-c.1", True),
        ("b\u00fccher.example", True),
        ("a.", False),
        ("", False),
        ("a b", False),
        ("[192.0.2.1]", False),
        ("a." * 127 + "a", True),  # 255 octets
        ("a." * 127 + "aa", False),
    ],
)
def test_is_domain(text: str, expected: bool) -> None:
    assert is_domain(text) is expected


def test_normal_domain_of_one_that_has_no_ascii_form() -> None:
    assert normal_domain("\u2603\u2603-.example", to_ascii) is None


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        ("[127.0.0.1]", "[127.0.0.1]"),
        ("[IPv6:0:0::1]", "[IPv6:::1]"),
        ("[IPv6:fe80::1%25]", None),
        ("[x]", None),
    ],
)
def test_normal_literal(literal: str, expected: str | None) -> None:
    assert normal_literal(literal) == expected


# The slow reference: RFC 5321 §4.1.2 as functions, one for each rule. Each takes a position and gives every position
# at which the rule can end. Ours differ from the RFC's in what address.py says it takes more ("_") or less (labels
# over 63 octets, C1 controls, tags but IPv6, leading zeros in Snum).

Ends = set[int]
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = "0123456789"


def is_utf8_non_ascii(char: str) -> bool:
    return ord(char) >= 0xA0


class Reference:
    """A recursive-descent parser over one text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def char(self, at: int, allowed: str) -> bool:
        return at < len(self.text) and self.text[at] in allowed

    def literally(self, ends: Ends, word: str) -> Ends:
        return {at + len(word) for at in ends if self.text.startswith(word, at)}

    def atom(self, at: int) -> Ends:
        ends = set()
        while self.char(at, LETTERS + DIGITS + "!#$%&'*+-/=?^_`{|}~") or (
            at < len(self.text) and is_utf8_non_ascii(self.text[at])
        ):
            at += 1
            ends.add(at)
        return ends

    def dot_string(self, at: int) -> Ends:
        ends = self.atom(at)
        for end in sorted(ends):
            if self.char(end, "."):
                ends |= self.dot_string(end + 1)
        return ends

    def quoted_string(self, at: int) -> Ends:
        if not self.char(at, '"'):
            return set()
        at += 1
        while at < len(self.text) and self.text[at] != '"':
            code = ord(self.text[at])
            if self.text[at] == "\\":
                if at + 1 == len(self.text) or not 32 <= ord(self.text[at + 1]) <= 126:
                    return set()
                at += 2
            elif 32 <= code <= 126 or is_utf8_non_ascii(self.text[at]):
                at += 1
            else:
                return set()
        return self.literally({at}, '"')

    def sub_domain(self, at: int) -> Ends:
        start, ends = at, set()
        while at < len(self.text) and (self.char(at, LETTERS + DIGITS + "_-") or is_utf8_non_ascii(self.text[at])):
            at += 1
            if self.text[start] != "-" and self.text[at - 1] != "-" and at - start <= 63:
                ends.add(at)
        return ends

    def domain(self, at: int) -> Ends:
        ends = self.sub_domain(at)
        for end in sorted(ends):
            if self.char(end, "."):
                ends |= self.domain(end + 1)
        return ends

    def address_literal(self, at: int) -> Ends:
        close = self.text.find("]", at)
        if not self.char(at, "[") or close < 0:
            return set()
        inside = self.text[at + 1 : close]
        is_ipv6 = inside.upper().startswith("IPV6:") and is_ipv6_address(inside[5:])
        return {close + 1} if is_ipv6 or is_ipv4_address(inside) else set()

    def source_route(self, at: int) -> Ends:
        """A-d-l ":", which may be missing."""
        ends, routes = {at}, self.literally({at}, "@")
        while routes:
            domains = set().union(*map(self.domain, routes))
            ends |= self.literally(domains, ":")
            routes = self.literally(domains, ",@")
        return ends

    def path(self) -> tuple[str, int] | None:
        """(mailbox, end) of the one way to read a path; None if there is none."""
        readings = set()
        for start in set().union(*map(self.source_route, self.literally({0}, "<"))):
            for at in self.literally(self.dot_string(start) | self.quoted_string(start), "@"):
                for end in self.domain(at) | self.address_literal(at):
                    if self.char(end, ">") and self.is_short_enough(self.text[at:end]):
                        readings.add((self.text[start:end], end + 1))
        assert len(readings) <= 1, "the grammar is not ambiguous"
        return readings.pop() if readings else None

    @staticmethod
    def is_short_enough(domain: str) -> bool:
        if domain.isascii():
            return len(domain) <= 255
        try:
            to_ascii(domain)
        except ValueError:
            return False
        return True


def is_ipv4_address(text: str) -> bool:
    numbers = text.split(".")
    return len(numbers) == 4 and all(
        0 < len(number) <= 3 and set(number) <= set(DIGITS) and str(int(number)) == number and int(number) < 256
        for number in numbers
    )


def is_ipv6_address(text: str) -> bool:
    """IPv6-full / IPv6-comp / IPv6v4-full / IPv6v4-comp; "::" may stand for a single group, as RFC 4291 lets it."""
    halves = text.split("::")
    if len(halves) > 2:
        return False
    count = 0
    for index, half in enumerate(halves):
        groups = half.split(":") if half else []
        if groups and "." in groups[-1] and index == len(halves) - 1:
            if not is_ipv4_address(groups.pop()):
                return False
            count += 2
        if not all(0 < len(group) <= 4 and set(group) <= set(DIGITS + "abcdefABCDEF") for group in groups):
            return False
        count += len(groups)
    return count == 8 if len(halves) == 1 else count <= 7


PIECES = ["<", ">", "@", ":", ",", ".", '"', "\\", " ", "-", "_", "[", "]", "a", "B", "9", "+", "\t", "\x7f", "\x85"]
PIECES += ["\u00e9", "\u4f8b", "u@x", "<u@", "@x>", "<@a:", '<"', '"@', "x.y", "[192.0.2.1]", "[IPv6:", "::", "1:2:3:"]
PIECES += ["192.", "0.", "2.1", "<>", "a" * 63, "ab12:", "\u200b"]

broken_paths = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
atoms = st.text(st.sampled_from("ab.-_+\u00e9"), min_size=1, max_size=6)
quoted = st.text(st.sampled_from('ab >@\\"'), max_size=6).map('"{}"'.format)
literals = st.text(st.sampled_from("12:.fF"), max_size=12).flatmap(
    lambda text: st.sampled_from([f"[{text}]", f"[IPv6:{text}]"])
)
ip_literals = st.one_of(st.ip_addresses(v=4).map("[{}]".format), st.ip_addresses(v=6).map("[IPv6:{}]".format))
likely_paths = st.builds(
    "<{}{}@{}>{}".format,
    st.sampled_from(["", "", "@a:", "@a,@b.c:", "@a,b:", "@-a:"]),
    st.one_of(atoms, quoted),
    st.one_of(atoms, literals, ip_literals),
    st.sampled_from(["", " X=Y", ">", "@x>"]),
)


@given(st.one_of(likely_paths, broken_paths))
@settings(deadline=None, max_examples=500)
def test_paths_are_those_of_the_grammar(text: str) -> None:
    expected = None if text.startswith("<>") else Reference(text).path()
    found = parse_reverse_path(text, to_ascii)
    if text.startswith("<>"):
        assert found == (NULL_REVERSE_PATH, text[2:])
    elif expected is None:
        assert found is None
    else:
        assert found is not None
        assert (found[0].text, found[1]) == (expected[0], text[expected[1] :])
        mailbox = parse_mailbox(expected[0], to_ascii)
        assert mailbox == found[0]


@given(st.text(st.characters(codec="utf-8"), max_size=40))
@settings(deadline=None, max_examples=200)
def test_no_text_raises(text: str) -> None:
    for candidate in (text, f"<{text}>", f"<u@{text}>", f"<{text}@x>", f"<u@[{text}]>"):
        for parse in (parse_reverse_path, parse_forward_path):
            found = parse(candidate, to_ascii)
            assert found is None or candidate.endswith(found[1])


@pytest.mark.parametrize(
    ("local_part", "text"),
    [
        ("alice", "alice@example.com"),
        ("a.b+c", "a.b+c@example.com"),
        ("a b", '"a b"@example.com'),
        ('a"\\b', '"a\\"\\\\b"@example.com'),
        ("", '""@example.com'),
        ("ä", "ä@example.com"),
    ],
)
def test_mailbox_is_written_so_that_it_is_read_back(local_part: str, text: str) -> None:
    written = mailbox(local_part, "example.com")
    assert written.text == text
    assert parse_mailbox(text) == written
