"""
A crash or an error at each call with which the kerberos sidecar publishes a ccache.

With `--full` at every call; otherwise at a few, which a seed draws.
"""

import pytest

from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.each_call.drawing import KINDS, at_each_call
from tests.support.each_call.stage import Life, Stage
from tests.support.kerberos.site import Site


def open_sidecar(stage: Stage, site: Site) -> Life:
    given = {"PATH": "/usr/bin:/bin", "HOME": str(site.folder), **site.settings()}
    return stage.open("kerberos", given)  # type: ignore[arg-type]


def assert_it_has_converged(site: Site, life: Life, where: str) -> None:
    answer = life.cycle()
    assert "changed" == answer["result"], (where, answer)
    assert answer["ready"], (where, answer)
    assert site.expiry(), where
    left = site.leftovers()
    assert [] == [name for name in left if name.endswith(".new")], (where, left)


@pytest.mark.sample(3)
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_at_any_call_of_a_refresh_keeps_a_valid_ticket_and_leaves_nothing(
    stage: Stage, make_site: MakeSite, request: pytest.FixtureRequest, kind: str
) -> None:
    def refresh(at: int) -> int:
        """
        Publish a ticket, and a second one with a fault; return how many calls that
        took.
        """
        site = make_site("1d")
        with open_sidecar(stage, site) as life:
            life.cycle()
            assert life.last["ready"], life.last
            before = site.leftovers()
            descriptors = life.last["descriptors"]
            answer = life.cycle((at, kind))
            where = f"{kind} at call {at}: {answer}"
            assert site.expiry(), where
            if not life.has_crashed:
                assert_it_has_converged(site, life, where)
                assert life.last["descriptors"] <= descriptors + 1, where
        with open_sidecar(stage, site) as life:
            assert_it_has_converged(site, life, f"restart after {where}")
        assert before == site.leftovers(), where
        return int(answer.get("calls", 0))

    at_each_call(refresh, request, kind)
