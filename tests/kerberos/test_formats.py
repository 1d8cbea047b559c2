"""Names of principals; the files of MIT Kerberos: ccaches, keytabs, and krb5.conf."""

import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerberos_sidecar.formats import Ticket, parse_principal, strip_to_tgt
from kerberos_sidecar.keytab import (
    SIZE_LIMIT_BYTES,
    find_keytab,
    parse_keytab,
    read_keytab,
    select,
)
from kerberos_sidecar.krb5_conf import lines_about
from kerberos_sidecar.reasons import LINES
from kerberos_sidecar.settings import load_settings
from sidecar_runtime.errors import SidecarError
from tests.support.kerberos.formats import KEY, ccache, config, entry, hole, keytab, tgt
from tests.support.raising import raised
from tests.support.strangers import damaged

START = 1_700_000_000
END = 1_700_036_000


@pytest.mark.parametrize("offset_seconds", [0, 600, -600])
def test_reads_times_by_the_local_clock_whatever_the_kdcs_clock(
    offset_seconds: int,
) -> None:
    ticket = strip_to_tgt(
        ccache(
            config("fast_avail", b"yes"),
            tgt(END),
            config("pa", b"2"),
            offset_seconds=offset_seconds,
        )
    )[1]

    assert (
        Ticket(
            parse_principal("airflow@EXAMPLE.COM"),
            starts_at=START - offset_seconds,
            ends_at=END - offset_seconds,
            clock_offset_seconds=offset_seconds,
        )
        == ticket
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (ccache(), "contains no ticket-granting ticket for airflow@EXAMPLE"),
        (ccache(tgt(END, name="other")), "contains no ticket-granting ticket"),
        (ccache(tgt(END, realm="OTHER.COM")), "contains no ticket-granting ticket"),
        (b"", "is not a version 4 ccache"),
        (b"\5\3" + ccache(tgt(END))[2:], "is not a version 4 ccache"),
        (bytes((5, 4)) + bytes(2_000_000), "is not a version 4 ccache"),
        (b"\5\4", "ends in the middle"),
        # A consumer can write such names, or a wrong length can make bytes of a key
        # part of it.
        *(
            (ccache(tgt(END), name=name), r"name is not text$")
            for name in ("a\x1b[2J", "a" * 3000)
        ),
    ],
)
def test_refuses_what_contains_no_tgt_of_its_principal(
    content: bytes, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        strip_to_tgt(content)


SITE = """\
a comment before the first section
[libdefaults]
  ticket_lifetime = 10 hours
  R = {
    renew_lifetime = "7d"
  }
[realms]
  R = {
    # the first
    kdc = one  # of two
    kdc = two:88
    kdc = four:99999
  }
  OTHER = {
    kdc = three
  }
  LAST {
    kdc = five
  }
"""


def search(content: bytes) -> None:
    """Look into a krb5.conf for each cause."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(content)
        settings, _ = load_settings({"KRB5_CONFIG": file.name})
        for reason in LINES:
            lines_about(settings, "R", reason)


@pytest.mark.parametrize(
    ("parse", "whole"),
    [
        (strip_to_tgt, ccache(tgt(END), config("refresh_time", b"1"))),
        (parse_keytab, keytab(entry(key=KEY), entry("other"))),
        (search, SITE.encode()),
    ],
    ids=["ccache", "keytab", "krb5.conf"],
)
@given(data=st.data())
def test_damaged_content_raises_only_known_errors_that_reveal_no_key(
    parse: Callable[[bytes], object], whole: bytes, data: st.DataObject
) -> None:
    said = ""
    try:
        parse(data.draw(damaged(whole)))
    except (ValueError, EOFError) as error:
        said = str(error)

    assert KEY[:8].decode("latin-1") not in said


@given(text=st.text(max_size=40))
def test_a_name_is_a_principal_or_refused(text: str) -> None:
    with suppress(ValueError):
        found = parse_principal(text)
        assert found == parse_principal(str(found))


def read_folder(folder: Path) -> None:
    settings, _ = load_settings({"KERBEROS_KEYTAB_DIR": str(folder)})
    read_keytab(find_keytab(settings.entries[0], settings))


def refused(folder: Path, content: bytes) -> SidecarError:
    (folder / "airflow.keytab").write_bytes(content)
    return raised(SidecarError, read_folder, folder)


def test_files_of_which_none_is_a_keytab_are_no_choice(tmp_path: Path) -> None:
    (tmp_path / "README").touch()

    assert "keytab_missing" == refused(tmp_path, b"").reason


def test_a_volume_that_fails_is_not_blamed_on_permissions(tmp_path: Path) -> None:
    (tmp_path / "krb5.conf").touch()
    (tmp_path / "keytab").symlink_to("/proc/self/mem")  # has no first byte

    found = raised(SidecarError, read_folder, tmp_path)

    assert "keytab_unreadable" == found.reason
    assert "Input/output error" in found.message
    assert "volume" in found.advice


def test_its_text_changes_with_the_keys_of_the_principal_only() -> None:
    def text(*entries: bytes) -> str:
        return str(
            select("/k", parse_keytab(keytab(*entries)), parse_principal("airflow"))
        )

    assert text(entry(), entry("b")) == text(
        entry("c"), entry(), hole(9), entry(), bytes(64)
    )
    assert text(entry()) == text(entry(long_kvno=False))
    assert text(entry()) != text(entry(kvno=3))
    assert text(entry()) != text(entry(key=KEY[::-1]))
    assert text(entry()) != text(entry(), entry(enctype=17))


# The length of the second part of the name covers the key, too.
MISREAD = entry("airflow/x", key=b"legible!" * 4)[4:].replace(b"\0\1x", b"\0\x2ex")
MISREAD += bytes(64)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (keytab(struct.pack(">i", len(MISREAD)) + MISREAD), "keytab_garbage"),
        (keytab(hole(30)), "keytab_empty"),
        (b"\5\3" + entry(), "keytab_garbage"),
        (keytab(struct.pack(">i", 9) + b"\0\1\xff\xff" + bytes(5)), "keytab_garbage"),
        (b"\5" * (SIZE_LIMIT_BYTES + 1), "keytab_missing"),
        # Neither truncated nor empty: copying it again would not help.
        (b"\5\2" + b"\xb7\xa1\x90\x11" * 40, "keytab_garbage"),
        (keytab(entry()) + b"\x5c\xa1\x90\x11", "keytab_garbage"),
    ],
)
def test_reports_the_reason_of_invalid_content(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    found = refused(tmp_path, content)

    assert reason == found.reason
    assert "legible!" not in found.message


@pytest.mark.parametrize(
    ("reason", "lines"),
    [
        (
            "kdc_hung",
            ["10: kdc = one  # of two", "11: kdc = two:88", "12: kdc = four:99999"],
        ),
        (
            "config_invalid",
            [
                "1: a comment before the first section",
                "3: ticket_lifetime = 10 hours",
                "10: kdc = one  # of two",
                "12: kdc = four:99999",
                "17: LAST {",
            ],
        ),
        ("krb5_failed", []),
    ],
)
def test_quotes_the_lines_that_may_be_the_cause_for_a_realm(
    tmp_path: Path, reason: str, lines: list[str]
) -> None:
    path = tmp_path / "krb5.conf"
    path.write_text(SITE)
    settings, _ = load_settings({"KRB5_CONFIG": f"{tmp_path}/missing:{path}"})

    assert [f"{path}, line {line}" for line in lines] == lines_about(
        settings, "R", reason
    )
