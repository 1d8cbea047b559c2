"""
What the other thread may replace between any two reads of it.
"""

import time
from typing import Any, ClassVar

import pytest

from kerberos_sidecar.account import Account, State
from kerberos_sidecar.ccache import Ticket
from kerberos_sidecar.cycle import revision
from kerberos_sidecar.due import Failed, Found
from kerberos_sidecar.keytab import Key, Keytab
from kerberos_sidecar.principal import parse_principal
from kerberos_sidecar.reasons import failure
from kerberos_sidecar.settings import load_settings

AIRFLOW = parse_principal("airflow@EXAMPLE.COM")
KEYTAB = Keytab("/k", AIRFLOW, (Key(AIRFLOW, 300, 18),))
ERROR = failure("kdc_hung", "no KDC answers")


class Busy(Account):
    """
    An account of which each attribute turns into another value as soon as it has been read.
    """

    turns: ClassVar[dict[str, Any]] = {}

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name in Busy.turns:
            setattr(self, name, Busy.turns[name])
        return value


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Busy:
    settings = load_settings({})[0]
    found = Busy(settings.entries[0], settings)
    found.state = State(failed=Failed(ERROR, 1, "", 7.0))
    found.found = Found(Ticket(AIRFLOW, 0, 60, 0, 0.0), time.time())
    found.keytab = KEYTAB
    turns = {"state": State(), "found": Found(), "keytab": failure("keytab_missing", "gone")}
    monkeypatch.setattr(Busy, "turns", turns)
    return found


def test_reads_of_an_account_that_changes_meanwhile_are_of_one_moment(busy: Busy) -> None:
    assert 300 == busy.kvno
    assert "until 1970-01-01T00:01:00Z" == revision([busy])
    assert 7.0 == busy.next_at
    assert busy.error is None

    busy.state = State(failed=Failed(ERROR, 1, "", 7.0))
    busy.keytab = KEYTAB
    assert ERROR is busy.error
    assert KEYTAB is busy.usable_keytab()
