"""
A hostile author of DAGs, or of the roles file: nobody gains a permission that is not
theirs, and one of them stops no other.
"""

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sync_perm.airflow_config import parse_url
from sync_perm.compare import DEFAULT_ROLES, RESOURCES, unfit_id
from sync_perm.database import Database as Connection
from sync_perm.tables import MOST_BYTES, Reader
from tests import Facts
from tests.scenarios.sync_perm.conftest import StartSyncPerm, on_airflow
from tests.scenarios.sync_perm.standin import StandIn, add_dag, small
from tests.support.airflow.databases import Database, MariaDb, Postgres
from tests.support.airflow.installed import EVERY_VERSION, Airflow
from tests.support.airflow.permissions import (
    add_role,
    contents,
    grant,
    grants_on,
    revoke,
)
from tests.support.airflow.sync_perm import PASS_SECONDS, SyncPerm, run_command
from tests.support.waiting import wait_until

LIST_NAMES = Path(__file__).with_name("list_names.py")
# What the author of a DAG asks for.
ALL = ["can_read", "can_edit", "can_delete"]
INCLUDE = {"SYNC_PERM_INCLUDE_DAGS": "true"}
OWN_COLLATION = (
    "ALTER TABLE serialized_dag MODIFY dag_id VARCHAR(250) COLLATE utf8mb3_bin"
)


def names_of(airflow: Airflow, database: Database, home: Path) -> Any:
    """
    Return which names this Airflow keeps for itself: those in its packages, and those
    that it has written.
    """
    written = contents(database)
    more = [name for (name,) in written["resources"] + written["roles"]]
    done = airflow.run(
        database, home, "python", str(LIST_NAMES), given=json.dumps(more)
    )
    return json.loads(done.stdout.splitlines()[-1])


def copy_template(database: Database, name: str) -> None:
    """Give a serialized DAG of Airflow 2 another id, also one that DAG() refuses."""
    database.query(
        "INSERT INTO serialized_dag (dag_id, fileloc, fileloc_hash, data, data_compressed,"
        " last_updated, dag_hash, processor_subdir) SELECT %s, fileloc, fileloc_hash, data,"
        " data_compressed, last_updated, dag_hash, processor_subdir FROM serialized_dag"
        " WHERE dag_id = 'template'",
        (name,),
    )


def read_dags(database: Database, connect: type[Connection]) -> Mapping[str, Any]:
    """Return the access control of each DAG, as the sidecar reads it."""
    with closing(connect(parse_url("TEST", database.url))) as connection:
        return (
            Reader(include_dags=True, file=None, has_versions=False)
            .read(connection)
            .dags
        )


def of_all_dags(database: Database) -> list[Any]:
    """Return the grants that belong to no single DAG."""
    prefixes = tuple(kind.prefix for kind in RESOURCES.values())
    return [
        row for row in contents(database)["grants"] if not row[2].startswith(prefixes)
    ]


def on_all_dags(database: Database) -> set[tuple[str, str]]:
    """Return who has which permission on all DAGs, but for Admin, who has each."""
    return {one for one in grants_on(database, "DAGs") if one[0] != "Admin"}


def wait_for_quiet_polls(daemon: SyncPerm, count: int) -> None:
    polls = daemon.quiet_polls()
    wait_until(lambda: daemon.quiet_polls() >= polls + count, "polls", PASS_SECONDS)


@on_airflow(*EVERY_VERSION)
def test_every_id_that_airflow_takes_for_something_else_is_refused(
    airflow: Airflow, database: Database, home: Path
) -> None:
    told = names_of(airflow, database, home)

    # Our table is that of the installed packages.
    assert {
        kind: [one.prefix, sorted(one.actions)] for kind, one in RESOURCES.items()
    } == told["details"]
    assert len(told["resources"]) > 50
    for name, resources in told["resources"].items():
        own = [one.prefix + name for one in RESOURCES.values()]
        is_refused = unfit_id(name) is not None
        assert is_refused or own == resources, name
        # no other is refused, such as a DAG called Jobs
        is_reserved = name in RESOURCES or name.startswith(("DAG:", "DAG Run:"))
        assert is_reserved == is_refused, name


@pytest.mark.usefixtures("only_in_full")
def test_names_of_airflow_as_dag_and_as_role_change_no_permission_of_airflow(
    airflow: Airflow,
    database: Database,
    home: Path,
    start: StartSyncPerm,
    tmp_path: Path,
) -> None:
    """Each name is the id of a DAG, a role of the roles file and of `access_control`."""
    told = names_of(airflow, database, home)["resources"]
    roles = sorted(set(told) - set(DEFAULT_ROLES))
    add_role(database, "team")
    ruled = {"template": {"team": ALL}, "ruled": {one: ["can_read"] for one in roles}}
    airflow.write_dags(database, home, ruled)
    for name in told:
        copy_template(database, name)
    before = of_all_dags(database)
    chosen: list[Any] = [{"id": one, "permissions": ["can_edit"]} for one in told]
    given: Facts = {one: {} for one in roles}
    file = tmp_path / "roles.yaml"
    file.write_text(json.dumps({"roles": given | {"chooser": {"dags": chosen}}}))

    daemon = start(database, {**INCLUDE, "SYNC_PERM_ROLES": str(file)}).until_good()

    failing = daemon.status()["details"]["failing_dags"]
    reserved = {
        name
        for name, resources in told.items()
        if resources != [one.prefix + name for one in RESOURCES.values()]
    }
    assert {"DAGs", "DAG Run:x"} < reserved == set(failing)
    websites = {(role, "can_read", "Website") for role in (*roles, "team", "chooser")}
    assert websites == set(of_all_dags(database)) - set(before)
    assert set(before) <= set(of_all_dags(database))


def test_a_repair_after_a_dag_called_like_all_dags_is_not_undone(
    airflow: Airflow, database: Database, home: Path, start: StartSyncPerm
) -> None:
    """Airflow 2.11 applies its access_control to all DAGs, when the DAG has changed."""
    add_role(database, "team-b")
    before = on_all_dags(database)
    airflow.write_dags(
        database,
        home,
        {"DAGs": {"team-b": ALL}, "other": {"Viewer": ["can_edit"]}},
        parsed=True,
    )
    damaged = on_all_dags(database)
    daemon = start(database)
    daemon.wait_for_event(
        "dag_failed", PASS_SECONDS, dag="DAGs", reason="name_reserved"
    )
    daemon.wait_until_good()

    # Airflow's own sync of roles gives its roles back what they had, as always.
    restored = on_all_dags(database)
    for action in ALL:
        revoke(database, "team-b", action, "DAGs")
    seen = len(daemon.events)
    airflow.write_dags(database, home, {"more": {"Viewer": ["can_edit"]}})
    daemon.wait_for_pass(seen)
    daemon.wait_until_good()
    wait_for_quiet_polls(daemon, 5)

    team_b = {("team-b", action) for action in ALL}
    assert team_b == damaged
    assert before | team_b == restored
    assert before == on_all_dags(database)
    for dag_id in ("other", "more"):
        assert {("Viewer", "can_edit")} == grants_on(database, f"DAG:{dag_id}")
    assert 1 == len(daemon.find_events("dag_failed"))
    assert "1 cannot be synced: DAGs (name_reserved)" == daemon.shortfall()
    assert 1.0 == daemon.sample("sync_perm_failing_dags", reason="name_reserved")
    for command in ("check", "diff"):
        assert (
            "name_reserved: Airflow uses 'DAGs' for permissions"
            in run_command(command, airflow, database.url, home).stdout
        )


@pytest.mark.parametrize("server", ["mariadb", "mysql"])
def test_an_id_that_the_collation_takes_for_another_is_read_as_reserved(
    request: pytest.FixtureRequest, server: str
) -> None:
    running: MariaDb = request.getfixturevalue(server)
    database = small(running)
    # Airflow 3 has both, and 2.11 with this collation, as most of its own ids have.
    database.query(OWN_COLLATION)
    database.query("INSERT INTO ab_view_menu (name) VALUES ('DAG:pay')")
    for dag_id in ("páy", "new", "NEW"):
        add_dag(database, dag_id, {"Op": ["can_edit"]})

    dags = read_dags(database, Connection)

    reasons = {dag_id: getattr(dag, "reason", "") for dag_id, dag in dags.items()}
    assert {"páy": "name_reserved", "new": "name_reserved", "NEW": ""} == reasons
    assert "takes it for 'DAG:pay'" in str(dags["páy"])


def test_beside_a_reserved_id_the_command_of_an_unknown_airflow_syncs_no_dag(
    standin: StandIn, postgres: Postgres, begin: StartSyncPerm
) -> None:
    """It would sync that one, too; roles are synced."""
    database = small(postgres)
    standin.site.write(
        "import sys; sys.exit('all DAGs' if '--include-dags' in sys.argv else 0)"
    )
    add_dag(database, "DAGs", {})
    add_dag(database, "other", {"Viewer": ["can_edit"]})

    daemon = begin(database, INCLUDE).until_good()

    assert (
        "2 cannot be synced: DAGs (name_reserved), other (name_reserved)"
        == daemon.shortfall()
    )
    database.query("DELETE FROM serialized_dag WHERE dag_id = 'DAGs'")
    failed = daemon.wait_for_event("cycle_failed", PASS_SECONDS, reason="pass_failed")
    assert "all DAGs" in failed["error"]


def test_what_is_too_large_does_not_leave_the_database(postgres: Postgres) -> None:
    database = small(postgres)
    access = {"Op": ["can_edit"]}
    add_dag(database, "fits", access, MOST_BYTES)
    add_dag(database, "large", access, MOST_BYTES + 1)
    read: list[str] = []

    class Noting(Connection):
        def rows(self, query: str, **values: object) -> list[tuple[Any, ...]]:
            found = super().rows(query, **values)
            read.extend(str(value) for row in found for value in row)
            return found

    dags = read_dags(database, Noting)

    assert access == dags["fits"]
    assert "dag_too_large" == dags["large"].reason
    assert MOST_BYTES <= sum(map(len, read)) < 2 * MOST_BYTES


def test_grants_of_a_pass_are_logged_by_name_and_quiet_polls_log_nothing(
    airflow: Airflow, database: Database, home: Path, start: StartSyncPerm
) -> None:
    dags = {f"dag_{number:02}": {"Viewer": ["can_edit"]} for number in range(21)}
    airflow.write_dags(database, home, dags)
    daemon = start(database, INCLUDE).until_good()
    logged = daemon.find_events("grants_changed")
    wait_for_quiet_polls(daemon, 1)
    seen = len(daemon.events)
    wait_for_quiet_polls(daemon, 5)
    quiet = [one for one in daemon.events[seen:] if one["level"] != "debug"]
    grant(database, "Op", "can_edit", "DAG:dag_00")
    revoked = daemon.wait_for_event("grants_changed", PASS_SECONDS, seen)

    rows = sorted(f"+ Viewer: can_edit on DAG:{dag_id}" for dag_id in dags)
    ((told, count),) = [(event["rows"], event["count"]) for event in logged]
    assert (rows[:20], 21) == (told, count)
    assert [] == quiet
    assert (["- Op: can_edit on DAG:dag_00"], 1) == (
        revoked["rows"],
        revoked["count"],
    )
