"""
The output of `check` for each part; the scenario tests run it as a process.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("gssapi", reason="gssapi is not compiled: make setup-test as root")

from kerberos_sidecar import check
from kerberos_sidecar.access import Consumer
from kerberos_sidecar.settings import load_settings
from tests.support.kerberos.kdc import Kdc

ROOT = Consumer(0, 0)
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that runs `check` for a consumer, and returns its exit code and output."""

    def check_once(who: Consumer = ROOT, **environ: str) -> tuple[int, str]:
        (tmp_path / "cc").mkdir(exist_ok=True)
        given = {
            "KRB5_CONFIG": str(tmp_path / "krb5.conf"),
            "KERBEROS_KEYTAB_DIR": str(tmp_path / "keytab"),
            "KERBEROS_CCACHE": str(tmp_path / "cc" / "ccache"),
        }
        settings, _ = load_settings(
            {name: value for name, value in (given | environ).items() if value}
        )
        code = check.run(settings, {}, who)
        return code, capsys.readouterr().out

    return check_once


def test_reports_ok_for_every_part_and_publishes_nothing(
    run: Run, tmp_path: Path, keytab: Path, krb5_config: Path
) -> None:
    code, said = run()

    assert 0 == code
    assert "FAIL" not in said
    for part in ("krb5.conf", "keytab", "KDC", "key", "ccache", "consumer"):
        assert f"  ok    {part} " in said
    assert re.search(r"its clock is \+[01] s off this node's", said)  # a second may end meanwhile
    assert [] == list((tmp_path / "cc").iterdir())


def test_tries_only_the_newest_keys(run: Run, kdc: Kdc, keytab: Path, krb5_config: Path) -> None:
    """Each wrong key counts as a failed login, and a few of those lock the account."""
    kdc.write_keytab(keytab, "airflow")

    code, said = run()

    assert 0 == code
    assert "older keys, which can be removed" in said
    assert 2 == said.count("the KDC accepts it")


def test_a_key_of_a_forbidden_enctype_does_not_fail_the_check(
    run: Run, kdc: Kdc, keytab: Path, krb5_config: Path
) -> None:
    kdc.client_config(krb5_config, None, {"permitted_enctypes": "aes256-cts-hmac-sha1-96"})

    code, said = run()

    assert 0 == code
    assert "  ok    key            aes256-cts-hmac-sha1-96: the KDC accepts it" in said
    assert "  ??    key            aes128-cts-hmac-sha1-96: " in said


def test_reports_a_stale_keytab_and_tries_it_no_more_than_the_daemon(
    run: Run, tmp_path: Path, kdc: Kdc, krb5_config: Path
) -> None:
    """An operator may run it repeatedly while debugging, which must not lock the account."""
    kdc.add_principal("debugged")
    kdc.copy_keys(tmp_path / "keytab" / "k", "debugged")
    kdc.kadmin("cpw -randkey debugged")

    ends = [run() for _ in range(2)]
    before = kdc.requests()

    assert [3, 3] == [code for code, _ in ends]
    assert all("FAIL  KDC            keytab_stale: " in said for _, said in ends)
    assert all("export the keytab again" in said for _, said in ends)
    assert "FAIL  keytab         keytab_stale: " in run()[1]
    assert before == kdc.requests()
    kdc.write_keytab(tmp_path / "keytab" / "k", "debugged")
    assert "  ok    KDC " in run()[1]


def test_tries_for_several_ccaches_of_a_principal_count_together(
    run: Run, tmp_path: Path, kdc: Kdc, krb5_config: Path
) -> None:
    kdc.add_principal("shared")
    kdc.copy_keys(tmp_path / "keytab" / "k", "shared")
    kdc.kadmin("cpw -randkey shared")
    ccaches = [{"principal": "shared", "ccache": f"{tmp_path}/cc/{name}"} for name in "abc"]

    _, said = run(KERBEROS_PRINCIPALS=json.dumps(ccaches), KERBEROS_CCACHE="")

    assert 2 == said.count("FAIL  KDC            keytab_stale: ")
    assert 1 == said.count("FAIL  keytab         keytab_stale: ")


def test_reports_all_problems_in_one_run(run: Run, tmp_path: Path) -> None:
    code, said = run(KERBEROS_CCACHE=str(tmp_path / "missing" / "ccache"))

    assert 3 == code
    for reason in ("config_missing", "ccache_missing", "keytab_missing"):
        assert f"{reason}: " in said


def test_asks_the_kdc_even_if_the_ccache_folder_is_missing(
    run: Run, tmp_path: Path, keytab: Path, krb5_config: Path
) -> None:
    code, said = run(KERBEROS_CCACHE=str(tmp_path / "missing" / "ccache"))

    assert 3 == code
    assert "  ok    KDC            issued a ticket in" in said


def test_reports_why_a_consumer_cannot_read_the_ccache(
    run: Run, tmp_path: Path, keytab: Path, krb5_config: Path
) -> None:
    (tmp_path / "cc").mkdir(mode=0o700)

    code, said = run(Consumer(50000, 12345))

    assert 3 == code
    assert "uid 50000 with group 12345 cannot read it: " in said
    assert "fsGroup" in said
