"""SASLprep (RFC 4013): user names and passwords in the one form in which they are compared.

Two keyboards may send "é" as one character or as two; prepared, both are the same text. Plain ASCII without control
characters stays as it is.
"""

from __future__ import annotations

import stringprep
from unicodedata import ucd_3_2_0

#: Octets of a name or password. RFC 4616 §2 wants 255 at least; each of them beyond ASCII costs the loop 5 us, and a
#: line of AUTH has room for 9,000.
LONGEST = 512
#: RFC 4013 §2.3. Unassigned code points (table A.1) are let through: they are younger than Unicode 3.2, and a password
#: may have an emoji.
_PROHIBITED = (
    stringprep.in_table_c12,  # spaces beyond ASCII
    stringprep.in_table_c21_c22,  # control characters
    stringprep.in_table_c3,  # private use
    stringprep.in_table_c4,  # no characters
    stringprep.in_table_c5,  # surrogates
    stringprep.in_table_c6,  # no plain text
    stringprep.in_table_c7,  # no canonical representation
    stringprep.in_table_c8,  # change the display, or deprecated
    stringprep.in_table_c9,  # tags
)


def prepare(text: str) -> str:
    """The text to compare or to hash; "" if it is none: empty, or with characters that RFC 4013 prohibits."""
    if text.isascii():
        return text if text.isprintable() else ""
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    prepared = ucd_3_2_0.normalize("NFKC", mapped)
    is_wrong = any(is_in(c) for c in prepared for is_in in _PROHIBITED) or not _reads_one_way(prepared)
    return "" if is_wrong else prepared


def prepare_bytes(octets: bytes) -> str:
    """The same for what came over the wire; "" also if it is not UTF-8, or longer than LONGEST."""
    try:
        return prepare(octets.decode()) if len(octets) <= LONGEST else ""
    except UnicodeDecodeError:
        return ""


def _reads_one_way(text: str) -> bool:
    # RFC 3454 §6: with one character that is written from right to left, none from left to right, and the first and
    # the last are of the former kind.
    is_right_to_left = [*map(stringprep.in_table_d1, text)]
    if not any(is_right_to_left):
        return True
    return is_right_to_left[0] and is_right_to_left[-1] and not any(map(stringprep.in_table_d2, text))
