"""
Tickets are available where tasks run; `tests/chart/test_render.py` checks the keytab.
"""

from __future__ import annotations

import pytest

from tests.cluster.conftest import SERVICE
from tests.cluster.stack import PRINCIPAL, REALM, Stack

CONSUMERS = {"triggerer": "triggerer", "task pod": "base"}


@pytest.mark.parametrize("component", CONSUMERS)
def test_airflow_obtains_a_service_ticket_with_the_mounted_ccache(
    environment: Stack, component: str
) -> None:
    (pod,) = environment.pods()[component]

    told = pod.execute(CONSUMERS[component], "kvno", SERVICE)

    assert told.startswith(f"{SERVICE}@{REALM}: kvno = ")
    assert f"Default principal: {PRINCIPAL}@{REALM}" in pod.execute(CONSUMERS[component], "klist")
