"""
Tickets are where tasks run; that the keytab is not, `tests/chart/test_render.py` holds.
"""

from __future__ import annotations

import pytest

from tests.cluster.conftest import SERVICE
from tests.cluster.stack import PRINCIPAL, REALM, Stack

CONSUMERS = {"triggerer": "triggerer", "task pod": "base"}


@pytest.mark.parametrize("component", CONSUMERS)
def test_airflow_gets_a_service_ticket_with_what_it_finds(
    environment: Stack, component: str
) -> None:
    (pod,) = environment.pods()[component]

    told = pod.execute(CONSUMERS[component], "kvno", SERVICE)

    assert told.startswith(f"{SERVICE}@{REALM}: kvno = ")
    assert f"Default principal: {PRINCIPAL}@{REALM}" in pod.execute(CONSUMERS[component], "klist")
