"""
A fault in any of our containers is noticed, in each file and in what `make values` prints.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from tests.chart import checks, files, objects
from tests.chart.files import OBJECTS, VALUES, ours
from tests.chart.sidecars import Values

# What each sidecar reads as a time; it refuses another word.
TIMES = ("INTERVAL", "GITSYNC_PERIOD", "GIT_SYNC_WRAPPER_ONE_SHOT_DEADLINE")


def _misspell_a_key(container: Values) -> None:
    container["volumeMount"] = container.pop("volumeMounts")


def _change_the_port(container: Values) -> None:
    for port in container.get("ports", []):
        port["containerPort"] += 1
    for probe in ("startupProbe", "livenessProbe"):
        if "ports" not in container:  # one-shot: it has none to be wrong
            container[probe] = {"httpGet": {"path": "/healthz", "port": 9811}}


def _drop_a_mount(container: Values) -> None:
    mounts = container["volumeMounts"]
    mounts.remove(next(one for one in mounts if not one.get("readOnly")))


def _misspell_a_variable(container: Values) -> None:
    container["env"][0]["name"] += "S"


def _set_what_is_refused(container: Values) -> None:
    next(one for one in container["env"] if one["name"] in TIMES)["value"] = "soon"


FAULTS: dict[str, Callable[[Values], None]] = {
    "a key misspelled": _misspell_a_key,
    "another port": _change_the_port,
    "a mount dropped": _drop_a_mount,
    "a variable misspelled": _misspell_a_variable,
    "a value that the daemon refuses": _set_what_is_refused,
}
each_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())


@each_fault
@pytest.mark.parametrize("name", [one for one in VALUES if any(ours(files.load(one)))])
def test_fault_in_values_is_noticed(name: str, fault: Callable[[Values], None]) -> None:
    for number, _ in enumerate(ours(files.load(name))):
        values = copy.deepcopy(files.load(name))
        fault([*ours(values)][number])

        for merged in files.stacks(name, values):
            assert checks.complaints(merged)


@each_fault
@pytest.mark.parametrize("name", [one for one in OBJECTS if any(ours(files.load_objects(one)))])
def test_fault_in_an_object_is_noticed(name: str, fault: Callable[[Values], None]) -> None:
    things = files.load_objects(name)
    (container,) = ours(things)
    fault(container)

    assert any(map(objects.complaints, things))


@pytest.mark.parametrize("word", ["interval", "source", "gate"])
@pytest.mark.parametrize("name", ["values-dev.yaml", "values-prd.yaml"])
def test_word_that_the_daemon_refuses_is_noticed_in_an_overlay(name: str, word: str) -> None:
    values = files.load(name)
    values["sidecars"]["s3Sync"][word] = "soon"

    first, *_ = files.stacks(name, values)

    assert checks.complaints(first)
