"""
What is remembered of refused keys.
"""

from pathlib import Path

from kerberos_sidecar.formats import parse_principal
from kerberos_sidecar.keytab import Keytab
from kerberos_sidecar.lockout import MOST_KEYTABS, check_refused, note
from kerberos_sidecar.settings import load_settings
from sidecar_runtime.errors import SidecarError
from tests.support.raising import raised


def test_remembers_the_newest_of_many_keytabs(tmp_path: Path) -> None:
    ccache = str(tmp_path / "cc")
    settings, _ = load_settings({"KERBEROS_CCACHE": ccache})
    airflow = parse_principal("airflow@R")
    keytabs = [
        Keytab("/k", airflow, 1, "", str(number)) for number in range(MOST_KEYTABS + 1)
    ]
    for one in keytabs:
        note(ccache, one)

    check_refused(keytabs[0], settings)
    for one in (keytabs[1], keytabs[-1]):
        found = raised(SidecarError, check_refused, one, settings)
        assert "keytab_stale" == found.reason
