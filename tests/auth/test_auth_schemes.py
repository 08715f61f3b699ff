"""Password hashes: those of other programs are understood, ours are good, and what is wrong is said at once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpmaild.auth.schemes import HashError, PasswordHash, SchemeError, hash_password, parse

#: (scheme, "pencil" as other programs store it).
PENCILS = [
    (scheme, text)
    for scheme, text in map(str.split, (Path(__file__).parent / "pencils.txt").read_text().splitlines()[1:])
]
OF = dict(PENCILS)


@pytest.mark.parametrize(("scheme", "text"), PENCILS)
def test_hashes_of_other_programs(scheme: str, text: str) -> None:
    stored = parse(text)
    assert stored.scheme == scheme
    assert stored.verify("pencil")
    assert not stored.verify("pencils")
    assert text[-20:] not in repr(stored)


@pytest.mark.parametrize(("scram", "scheme"), [(False, "ARGON2ID"), (True, "SCRAM-SHA-256")])
def test_ours(scram: bool, scheme: str) -> None:
    text = hash_password("caf\u00e9", scram=scram)
    assert text != hash_password("caf\u00e9", scram=scram)  # salted
    stored = parse(text)
    assert stored.scheme == scheme
    assert (stored.scram is not None) is scram
    assert stored.verify("caf\u00e9")
    assert not stored.verify("cafe")


def test_parameters_of_ours_are_those_recommended() -> None:
    assert hash_password("x").startswith("{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$")


def test_long_passwords_of_bcrypt() -> None:
    # its library refuses what its hash never looked at
    assert not parse(OF["BLF-CRYPT"]).verify("x" * 100)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("{PLAIN}pencil", "{PLAIN} keeps the password readable"),
        ("{cleartext}pencil", "{CLEARTEXT} keeps the password readable"),
        ("pencil", "no hash of a known kind"),
        ("{CRYPT}eTQv0PmkISJDo", "no hash of a known kind"),  # DES
        ("$7$x", "no hash of a known kind"),
        ("{CRAM-MD5}0123", "{CRAM-MD5} is not known"),
        (OF["ARGON2I"].replace("{ARGON2I}", "{ARGON2ID}"), "no hash of the scheme ARGON2ID"),
        ("{ARGON2ID}pencil", "no hash of the scheme ARGON2ID"),
        ("{BLF-CRYPT}$2y$32$8NtCvLQ6aXohnf0BNbl3IObMynMZ2t7yVUrd5NKG3fiW8UlwR1VHC", "no hash of the scheme BLF-CRYPT"),
        ("$2y$05$short", "no hash of the scheme BLF-CRYPT"),
        ("$6$abcd$short", "no hash of the scheme SHA512-CRYPT"),
        ("{SSHA}0vxRJJChUDZGC1SJQBQ51tpU", "no hash of the scheme SSHA"),  # too short for its digest
        ("{SHA}0vxRJJChUDZGC1SJQBQ51tpUB/o==", "no hash of the scheme SHA"),
        ("{SCRAM-SHA-256}4096,pencil", "four fields"),
    ],
)
def test_what_is_no_hash(text: str, cause: str) -> None:
    with pytest.raises(SchemeError) as error:
        parse(text)
    assert cause in str(error.value)
    assert "pencil" not in str(error.value)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("argon2.low_level", OF["ARGON2ID"]),
        ("bcrypt", OF["BLF-CRYPT"]),
        ("passlib.handlers.md5_crypt", OF["SHA256-CRYPT"]),
    ],
)
def test_missing_library_is_named(module: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SchemeError, match=r"needs .*, which is not installed: pip install 'smtpmaild\[auth\]'"):
        parse(text)


def test_new_hash_names_the_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "argon2", None)
    with pytest.raises(SchemeError, match=r"smtpmaild\[auth\]"):
        hash_password("x")


def test_hash_that_cannot_be_computed() -> None:
    stored = parse("{ARGON2ID}$argon2id$v=19$m=1,t=0,p=1$UVk40YKN2+RKywjcFnDa0g$i3L601apqZMIPbHCayHgr/EnwlbuL7lE")
    with pytest.raises(HashError):
        stored.verify("pencil")


@given(st.sampled_from([text for _, text in PENCILS]), st.data())
def test_torn_lines_raise_nothing_else(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    torn = text[:start] + data.draw(st.text(max_size=3)) + text[end:]
    try:
        assert isinstance(parse(torn), PasswordHash)
    except SchemeError as error:
        assert torn not in str(error) or len(torn) < 20
