"""
Reading a keytab and reporting what is wrong with it, without showing its keys.
"""

import base64
import os
import struct
from pathlib import Path

import pytest

from kerberos_sidecar.formats import parse_principal
from kerberos_sidecar.keytab import SIZE_LIMIT_BYTES, parse_keytab, read_keytab, select
from sidecar_runtime.errors import SidecarError
from tests.support.kerberos.formats import KEY, entry, hole, keytab
from tests.support.raising import raised


def refused(path: Path) -> SidecarError:
    return raised(SidecarError, read_keytab, str(path))


def write(folder: Path, content: bytes) -> Path:
    path = folder / "airflow.keytab"
    path.write_bytes(content)
    return path


def test_reads_principals_kvnos_and_enctypes(tmp_path: Path) -> None:
    content = keytab(
        *(entry(), hole(40), entry("HTTP/web", kvno=300, enctype=17)),
        *(entry(kvno=3, long_kvno=False), bytes(64)),
    )
    path = str(write(tmp_path, content))

    keys = read_keytab(path)

    assert [
        ("airflow@EXAMPLE.COM", 2, 18),
        ("HTTP/web@EXAMPLE.COM", 300, 17),
        ("airflow@EXAMPLE.COM", 3, 18),
    ] == [(str(key.principal), key.kvno, key.enctype) for key in keys]
    found = select(path, keys, None)
    assert (3, {18: "aes256-cts-hmac-sha1-96"}) == (found.kvno, found.enctypes)
    assert repr(KEY)[2:20] not in repr(found) + str(found)


def test_its_text_changes_with_the_keys_of_the_principal_only() -> None:
    def text(*entries: bytes) -> str:
        return str(select("/k", parse_keytab(keytab(*entries)), parse_principal("airflow")))

    assert text(entry(), entry("b")) == text(entry("c"), entry(), hole(9), entry())
    assert text(entry()) != text(entry(kvno=3))
    assert text(entry()) != text(entry(key=KEY[::-1]))
    assert text(entry()) != text(entry(), entry(enctype=17))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "keytab_empty"),
        (b"\5\2", "keytab_empty"),
        (keytab(hole(30)), "keytab_empty"),
        (b"\5", "keytab_garbage"),
        (keytab(entry())[:-1], "keytab_truncated"),
        (keytab(entry(), entry())[:-40], "keytab_truncated"),
        (b"not a keytab", "keytab_garbage"),
        (b"\5\3" + entry(), "keytab_garbage"),
        (keytab(struct.pack(">i", 9) + b"\0\1\xff\xff" + bytes(5)), "keytab_garbage"),
        (b"\5" * (SIZE_LIMIT_BYTES + 1), "keytab_garbage"),
        # Neither truncated nor empty: copying it again would not help.
        (b"\5\2" + b"\x5c\xa1\x90\x11" * 40, "keytab_garbage"),
        (b"\5\2" + b"\xb7\xa1\x90\x11" * 40, "keytab_garbage"),
        (keytab(entry()) + b"\x5c\xa1\x90\x11", "keytab_garbage"),
    ],
)
def test_reports_the_reason_of_invalid_content(tmp_path: Path, content: bytes, reason: str) -> None:
    assert reason == refused(write(tmp_path, content)).reason


def test_recognizes_a_keytab_that_was_encoded_twice(tmp_path: Path) -> None:
    error = refused(write(tmp_path, base64.b64encode(keytab(entry())) + b"\n"))

    assert "base64" in error.message
    assert "encoded twice" in error.advice


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "keytab_missing"),
        ("airflow.keytab/below", "keytab_missing"),
        ("loop", "keytab_missing"),
        ("folder", "keytab_unreadable"),
        ("pipe", "keytab_unreadable"),
    ],
)
def test_reports_a_path_that_is_no_file(tmp_path: Path, name: str, reason: str) -> None:
    write(tmp_path, keytab(entry()))
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")

    assert reason == refused(tmp_path / name).reason


def test_selects_the_first_principal_or_the_requested_one() -> None:
    content = keytab(entry("b"), entry("a"), entry("a", "OTHER.COM"))
    keys = parse_keytab(content)

    for wanted, expected in ((None, "b@EXAMPLE.COM"), ("a", "a@EXAMPLE.COM"), ("a@OTHER.COM",) * 2):
        name = parse_principal(wanted) if wanted else None
        assert expected == str(select("/k", keys, name).principal)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("c", "principal_absent"),
        ("c@EXAMPLE.COM", "principal_absent"),
        ("A@EXAMPLE.COM", "principal_absent"),
        ("a@example.com", "realm_absent"),
        ("a@OTHER.COM", "realm_absent"),
    ],
)
def test_reports_which_principals_exist_instead(wanted: str, reason: str) -> None:
    keys = parse_keytab(keytab(entry("a"), entry("b")))

    with pytest.raises(SidecarError, match=r"a@EXAMPLE\.COM, b@EXAMPLE\.COM") as caught:
        select("/k", keys, parse_principal(wanted))

    assert reason == caught.value.reason
    many = parse_keytab(keytab(*(entry(f"service{number}") for number in range(3000))))
    error = raised(SidecarError, select, "/k", many, parse_principal(wanted))
    assert len(error.message) < 500


def test_refuses_a_wrong_length_that_makes_the_key_part_of_a_name(tmp_path: Path) -> None:
    """The length of the second component covers the key."""
    key = b"legible!" * 4
    content = bytearray(keytab(entry("airflow/x", key=key)))
    content[content.index(b"x") - 1] = len(key) + 14
    content += bytes(64)
    content[2:6] = struct.pack(">i", len(content) - 6)

    found = refused(write(tmp_path, bytes(content)))

    assert "keytab_garbage" == found.reason
    assert "legible!" not in found.message + found.advice
