"""
Remembering the keys that the KDC has refused.
"""

import json
import os
from collections import Counter
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


def test_the_next_process_remembers_two_refusals_until_the_keys_change(path: Path) -> None:
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


def test_counts_and_forgets_refusals_that_another_process_recorded(path: Path) -> None:
    """Such as `check` beside the daemon: two tries by each would be four wrong keys in a row."""
    daemon, check = Refused(str(path), 1_800), Refused(str(path), 1_800)
    check.add("keys", NOW)
    daemon.add("keys", NOW + 1)

    assert [1_859] * 2 == [one.wait_seconds("keys", NOW + 2, None) for one in (daemon, check)]
    check.add("new keys", NOW + 2)
    check.add("new keys", NOW + 3)
    assert 1_859 == daemon.wait_seconds("new keys", NOW + 4, None)
    daemon.clear()
    assert 0 == Refused(str(path), 1_800).wait_seconds("new keys", NOW + 4, None)


def test_counts_the_refusals_of_several_keytabs_of_an_account_together(path: Path) -> None:
    refused = Refused(str(path), 1_800)
    tries: Counter[str] = Counter()
    for now in range(60):
        keys = ("one", "two", "three")[now % 3]
        if not refused.wait_seconds(keys, NOW + now, None):
            refused.add(keys, NOW + now)
            tries[keys] += 1

    assert {"one": 1, "two": 1, "three": 2} == tries
    assert 0 == refused.wait_seconds("new keys", NOW + 60, None)
    refused.add("new keys", NOW + 60)
    assert 0 == refused.wait_seconds("new keys", NOW + 61, None)


def test_remembers_refusals_beside_every_ccache_of_an_account(tmp_path: Path) -> None:
    """The first folder may be missing at the next start, and the second may be a new volume."""
    ccaches = [tmp_path / name / "ccache" for name in ("one", "two")]
    first = Refused(str(ccaches[0]), 1_800)
    first.beside(str(ccaches[1]))
    ccaches[1].parent.mkdir()
    first.add("keys", NOW)
    ccaches[0].parent.mkdir()
    first.add("keys", NOW + 1)

    again = [Refused(str(ccache), 1_800) for ccache in ccaches]

    assert [1_859] * 2 == [one.wait_seconds("keys", NOW + 2, None) for one in again]
    first.clear()
    assert [[], []] == [os.listdir(ccache.parent) for ccache in ccaches]


def test_ignores_refusals_in_the_future_after_the_clock_was_set_back(path: Path) -> None:
    refused = Refused(str(path), 1_800)
    refused.add("keys", NOW + 86_400)
    refused.add("keys", NOW + 86_400)

    assert 0 == refused.wait_seconds("keys", NOW, None)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[" * 9_999, b"[]", b"{}", b"1" * (1 << 20)),
        *(b'{"refused": {"keys": [%s]}}' % moment for moment in (b"[]", b'"x"', b"9" * 400)),
        *(b'{"refused": %s}' % refused for refused in (b"[]", b'{"keys": 1}')),
    ],
)
def test_ignores_invalid_content_that_a_consumer_wrote(path: Path, content: bytes) -> None:
    remembered(path).write_bytes(content)

    refused = Refused(str(path), 1_800)

    assert 0 == refused.wait_seconds("keys", NOW, None)
    refused.add("keys", NOW)
    assert {"refused": {"keys": [NOW]}} == json.loads(remembered(path).read_bytes())


def test_remembers_refusals_in_memory_if_they_cannot_be_written(tmp_path: Path) -> None:
    refused = Refused(str(tmp_path / "missing" / "ccache"), 1_800)
    refused.add("keys", NOW)
    refused.add("keys", NOW)

    assert 1_860 == refused.wait_seconds("keys", NOW, None)


def test_distinguishes_keys_without_revealing_them() -> None:
    """Active Directory's ktpass writes no time, and may write the same kvno for another key."""

    def keys(*entries: bytes) -> str:
        return keys_of(Keytab("/k", parse_keytab(keytab(*entries))), AIRFLOW)

    one = keys(entry(kvno=2))
    assert one != keys(entry(kvno=3))
    assert one != keys(entry(kvno=2, key=KEY[::-1]))
    assert one != keys(entry(kvno=2), entry(kvno=2, enctype=17))
    assert one == keys(entry(kvno=2), entry("other", kvno=9))
    assert KEY.hex()[:8] not in one
