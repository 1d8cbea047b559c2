"""
What is remembered of keys that the KDC has refused.
"""

import json
import os
from pathlib import Path

import pytest

from kerberos_sidecar.formats.keytab import Keytab, parse_keytab
from kerberos_sidecar.formats.principal import parse_principal
from kerberos_sidecar.refused import Refused, keys_of
from tests.kerberos.given import KEY, entry, keytab

NOW = 1_700_000_000.0
AIRFLOW = parse_principal("airflow@EXAMPLE.COM")


def remembered(path: Path) -> Path:
    return path.with_name(".ccache.refused")


def test_two_refusals_are_remembered_by_the_next_process_until_the_keys_are_others(
    path: Path,
) -> None:
    first = Refused(str(path), 1_800)
    for now in (NOW, NOW + 1):
        assert 0 == first.wait_seconds("keys", now, None)
        first.add("keys", now)

    again = Refused(str(path), 1_800)

    assert 1_859 == again.wait_seconds("keys", NOW + 2, None)
    assert 0 == again.wait_seconds("other keys", NOW + 2, None)
    again.add("other keys", NOW + 2)
    assert 0 == Refused(str(path), 1_800).wait_seconds("other keys", NOW + 3, None)
    again.clear()
    assert [] == os.listdir(path.parent)


def test_what_another_process_has_tried_meanwhile_counts_and_is_forgotten_too(path: Path) -> None:
    """As `check` beside the daemon: each of them twice would be four wrong keys in a row."""
    daemon, check = Refused(str(path), 1_800), Refused(str(path), 1_800)
    check.add("keys", NOW)
    daemon.add("keys", NOW + 1)

    assert [1_859] * 2 == [one.wait_seconds("keys", NOW + 2, None) for one in (daemon, check)]
    check.add("new keys", NOW + 2)
    check.add("new keys", NOW + 3)
    assert 1_859 == daemon.wait_seconds("new keys", NOW + 4, None)
    daemon.clear()
    assert 0 == Refused(str(path), 1_800).wait_seconds("new keys", NOW + 4, None)


def test_a_clock_that_was_set_back_does_not_hold_back(path: Path) -> None:
    refused = Refused(str(path), 1_800)
    refused.add("keys", NOW + 86_400)
    refused.add("keys", NOW + 86_400)

    assert 0 == refused.wait_seconds("keys", NOW, None)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[" * 9_999, b"[]", b"{}", b'{"keys": 1, "refused_at": [[]]}', b"1" * (1 << 20)],
)
def test_what_a_consumer_has_written_there_counts_as_nothing(path: Path, content: bytes) -> None:
    remembered(path).write_bytes(content)

    refused = Refused(str(path), 1_800)

    assert 0 == refused.wait_seconds("keys", NOW, None)
    refused.add("keys", NOW)
    assert {"keys": "keys", "refused_at": [NOW]} == json.loads(remembered(path).read_bytes())


def test_a_volume_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    refused = Refused(str(tmp_path / "missing" / "ccache"), 1_800)
    refused.add("keys", NOW)
    refused.add("keys", NOW)

    assert 1_860 == refused.wait_seconds("keys", NOW, None)


def test_keys_are_told_apart_by_what_is_no_secret() -> None:
    """Active Directory's ktpass writes no time, and its kvno may be that of the wrong one."""

    def keys(*entries: bytes) -> str:
        return keys_of(Keytab("/k", parse_keytab(keytab(*entries))), AIRFLOW)

    one = keys(entry(kvno=2))
    assert one != keys(entry(kvno=3))
    assert one != keys(entry(kvno=2, key=KEY[::-1]))
    assert one != keys(entry(kvno=2), entry(kvno=2, enctype=17))
    assert one == keys(entry(kvno=2), entry("other", kvno=9))
    assert KEY.hex()[:8] not in one
