"""
Roles as code beside a real Airflow: the permissions of the file exist; nothing else
changes.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tests.scenarios.sync_perm.conftest import SUPPORTED, StartSyncPerm, on_airflow
from tests.support.airflow.databases import Database
from tests.support.airflow.installed import Airflow
from tests.support.airflow.permissions import (
    add_member,
    add_user,
    contents,
    grant,
    grants_on,
    revoke,
)
from tests.support.airflow.sync_perm import PASS_SECONDS, run_command
from tests.support.replacing import replace
from tests.support.waiting import wait_until

MISTAKES = """\
roles:
  team-b:
    from: [Viewr]
    dags:
      - {folder: team-b, permissions: [can_read]}
"""
BY_ALL_WAYS = """\
roles:
  team-a:
    permissions: [can_read on DAG Runs]
    dags:
      - {id: named, permissions: [can_create on DAG Runs]}
      - {tag: public, permissions: [can_edit]}
      - {owner: ann, permissions: [can_read]}
      - {folder: team-a/**, permissions: [DAGs.can_delete]}
      - {owner: nobody, permissions: [can_edit]}
"""
STOLEN = ["+ team-a: can_delete on DAG:named"]


@on_airflow(*SUPPORTED)
def test_a_file_with_mistakes_changes_nothing_and_each_is_told_until_it_is_fixed(
    airflow: Airflow, database: Database, tmp_path: Path, start: StartSyncPerm
) -> None:
    file = tmp_path / "roles.yaml"
    settings = {"SYNC_PERM_ROLES": str(file)}
    file.write_text(MISTAKES)
    before = contents(database)

    checked = run_command("check", airflow, database.url, tmp_path, settings)
    told = run_command("diff", airflow, database.url, tmp_path, settings)
    daemon = start(database, settings)
    daemon.wait_for_pass()
    one_shot = start(database, {**settings, "SYNC_PERM_ONE_SHOT": "true"})
    one_shot.wait_for_event("cycle_finished", PASS_SECONDS, result="partial")

    assert 3 == checked.returncode
    assert f"FAIL  roles file     roles_file_invalid: {file}:3: " in checked.stdout
    assert 2 == told.returncode, told.stdout
    assert f"{file}:3: roles.team-b.from[0]: 'Viewr' is neither a role" in told.stderr
    assert f"{file}:5: roles.team-b.dags[0].folder: 'team-b' names a" in told.stderr
    refused = daemon.find_events("roles_file_refused")
    assert [(3, "roles.team-b.from[0]"), (5, "roles.team-b.dags[0].folder")] == [
        (event["line"], event["key"]) for event in refused
    ]
    answer = daemon.get("/readyz")
    assert 200 == answer.status
    assert f"the roles file is ignored: {file}:3: " in answer.json()["shortfall"]
    assert "roles_file_invalid" == answer.json()["reason"]
    assert "the roles file is ignored" in daemon.get("/").body
    assert 2.0 == daemon.sample("sync_perm_roles_file_mistakes")
    unasked = 'sync_perm_unasked_grants{sidecar="sync-perm"}'
    assert unasked not in daemon.metrics(), "what it asks for is not known"
    assert before == contents(database)

    replace(file, "roles: {team-a: {from: [Viewer]}}")
    assert 0 == one_shot.wait_for_exit(PASS_SECONDS).code
    for resource in ("Website", "Jobs"):
        assert ("team-a", "can_read") in grants_on(database, resource)
    daemon.wait_for_event("roles_file_accepted", PASS_SECONDS)
    wait_until(lambda: 0.0 == daemon.sample("sync_perm_roles_file_mistakes"), "fixed")
    assert 0.0 == daemon.metrics()[unasked]


@on_airflow(*SUPPORTED)
def test_selects_dags_by_owner_tag_folder_and_id_and_revokes_nothing(
    airflow: Airflow, database: Database, tmp_path: Path, start: StartSyncPerm
) -> None:
    """
    A DAG that has an `access_control`, even an empty one, receives nothing. A file in
    team-a takes the id of another DAG for a moment: that grant stays, and is logged.
    """
    file = tmp_path / "roles.yaml"
    file.write_text(BY_ALL_WAYS)
    places = {
        "named": ("n.py",),
        "tagged": ("t.py", "public"),
        "owned": ("o.py",),
        "placed": ("team-a/p.py",),
        "ruled": ("team-a/r.py", "public"),
    }
    dags: dict[str, Mapping[str, list[str]] | None] = dict.fromkeys(places)
    dags["ruled"] = {}
    airflow.write_dags(database, tmp_path, dags, parsed=True, places=places)
    database.query("UPDATE dag SET owners = 'bob, ann, carl' WHERE dag_id = 'owned'")
    wanted = {
        ("team-a", "can_read", "Website"),
        ("team-a", "can_read", "DAG Runs"),
        ("team-a", "can_create", "DAG Run:named"),
        ("team-a", "can_edit", "DAG:tagged"),
        ("team-a", "can_read", "DAG:owned"),
        ("team-a", "can_delete", "DAG:placed"),
    }

    def held() -> set[tuple[str, ...]]:
        return {row for row in contents(database)["grants"] if row[0] == "team-a"}

    settings = {"SYNC_PERM_ROLES": str(file)}
    foretold = run_command("diff", airflow, database.url, tmp_path, settings).stdout
    promised = {
        line.split(": ", 1)[1] for line in foretold.splitlines() if "_grant: " in line
    }
    assert "? roles.team-a.dags[4] (line 9): no DAG matches owner nobody" in foretold
    assert promised == {f"{role}: {action} on {name}" for role, action, name in wanted}

    daemon = start(database, settings)
    # until Airflow has started and written them
    name = 'sync_perm_differences{{kind="file_{}",sidecar="sync-perm"}}'
    kinds = [name.format(kind) for kind in ("role", "grant")]
    wait_until(lambda: all(map(daemon.metrics().get, kinds)), "they lack", PASS_SECONDS)
    daemon.wait_until_good()

    assert wanted == held()
    add_user(database, "eve", "")
    add_member(database, "eve", "team-a")
    assert [
        "roles.team-a.dags[1] (line 6): the access_control of 1 decides: ruled",
        "roles.team-a.dags[3] (line 8): the access_control of 1 decides: ruled",
        "roles.team-a.dags[4] (line 9): no DAG matches owner nobody",
    ] == daemon.status()["details"]["roles_file_notes"]
    path = "relative_fileloc" if airflow.is_3 else "fileloc"
    move = f"UPDATE dag SET {path} = REPLACE({path}, %s, %s) WHERE dag_id = 'named'"
    database.query(move, ("n.py", "team-a/n.py"))
    daemon.wait_for_event("grants_changed", PASS_SECONDS, rows=STOLEN)
    database.query(move, ("team-a/n.py", "n.py"))
    wanted.add(("team-a", "can_delete", "DAG:named"))
    # Somebody adds one grant and removes another, and a line of the file goes.
    replace(file, BY_ALL_WAYS.replace("tag: public", "tag: gone"))
    grant(database, "team-a", "can_edit", "DAG:named")
    revoke(database, "team-a", "can_read", "DAG:owned")
    daemon.wait_for_event("pass_started", PASS_SECONDS, reason="file", file_rows=1)
    # of the file's rows, and of the DAGs where Airflow itself does not keep them
    daemon.wait_for_pass(reason="file", rows_wanted=4 if airflow.is_3 else 39)
    assert wanted | {("team-a", "can_edit", "DAG:named")} == held()
    assert database.query("SELECT role_id FROM ab_user_role"), "users keep it"
    passes = partial(daemon.sample, "sync_perm_passes_total", reason="file")
    wait_until(lambda: passes(result="success"), "the pass is counted")
    # A team goes, and a mistake comes.
    replace(file, "roles: {team-b: {}}")
    told = run_command("diff", airflow, database.url, tmp_path, settings)
    left = (
        "~ team-a: can_read on DAG Runs: from a person, or an earlier access_control or"
    )
    assert left in told.stdout
    unasked = partial(daemon.sample, "sync_perm_unasked_grants")
    wait_until(lambda: unasked() == 8, "they are counted")
    replace(file, MISTAKES)
    daemon.wait_for_event("roles_file_refused", PASS_SECONDS)
    assert 8 == unasked(), "nobody took anything back"
