"""
The publisher's commands as processes, against real servers: with conditional writes and without.
"""

import contextlib
import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import S3_SYNC, Daemon
from tests.support.loopback import closed_port
from tests.support.publishing import (
    PREFIX,
    Publishing,
    check_every_release,
    read_release,
    write_files,
)
from tests.support.releases import make_release
from tests.support.servers import MotoServer, S3Server
from tests.support.users import as_user

A = {"a.py": b"print('a')\n", "sql/Q3 report (final).sql": b"select 1;\n" * 40, "empty": b""}
B = {"a.py": b"print('b')\n", "docs/\u00dcberblick.md": b"# \xc3\x9c\n"}
BROKEN = {"a.py": b"print('a'\n", "b.py": b"def :\n"}


class Place:
    """One bucket of a real server, and a person who publishes to it."""

    def __init__(self, server: S3Server, folder: Path) -> None:
        self.server = server
        self.bucket = server.new_bucket("releases")
        self.home = folder / "home"
        self.dags = folder / "dags"
        self.publisher = Publishing(server, self.bucket, self.home)
        self._client: Any = server.client()

    def publish(self, files: dict[str, bytes], *arguments: str) -> Any:
        """Publish a folder with these files; return the facts."""
        return self.publisher.succeed("publish", write_files(self.dags, files), *arguments)

    def publisher_with(self, **settings: str) -> Publishing:
        """The same person with more variables."""
        return Publishing(self.server, self.bucket, self.home, settings)

    def put(self, name: str, body: bytes) -> None:
        self._client.put_object(Bucket=self.bucket, Key=PREFIX + name, Body=body)

    def bodies(self) -> dict[str, bytes]:
        found = self._client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return {
            item["Key"]: self._client.get_object(Bucket=self.bucket, Key=item["Key"])["Body"].read()
            for item in found
        }

    def current(self) -> dict[str, bytes]:
        """The files of what is current, all of it verified."""
        bodies = self.bodies()
        check_every_release(bodies)
        return read_release(bodies)


@pytest.fixture
def place(server: S3Server, tmp_path: Path) -> Place:
    """A bucket of each server in turn."""
    return Place(server, tmp_path)


@pytest.fixture
def on_moto(moto: MotoServer, tmp_path: Path) -> Place:
    """A bucket of the server that is in this process."""
    return Place(moto, tmp_path)


def test_the_life_of_releases(place: Place) -> None:
    """Publish, publish again, list, go back, pin, prune: on every server."""
    guarded = place.server.name == "moto"
    first = place.publish(A)
    again = place.publish(A)
    second = place.publish(B, "--message", "Second")

    assert ("published", "unchanged", "published") == tuple(
        facts["result"] for facts in (first, again, second)
    )
    assert [guarded, None, guarded] == [f["conditional_writes"] for f in (first, again, second)]
    assert first["revision"] == again["revision"] == second["previous"]
    assert (len(A), sum(map(len, A.values()))) == (first["files"], first["size_bytes"])
    assert B == place.current()

    listed = place.publisher.succeed("releases")
    assert second["revision"] == listed["current"]
    states = {entry["revision"]: entry["state"] for entry in listed["releases"]}
    assert {second["revision"]: ["current"], first["revision"]: ["previous"]} == states
    [newest] = [e for e in listed["releases"] if e["revision"] == second["revision"]]
    assert (len(B), "Second") == (newest["files"], newest["origin"]["message"])

    back = place.publisher.succeed("rollback")
    assert ("rolled_back", first["revision"]) == (back["result"], back["revision"])
    assert A == place.current()

    third = place.publish({"c.py": b""})
    place.publisher.succeed("pin", second["revision"])
    prune = ("prune-releases", "--keep-count", "0", "--keep-for", "0")
    assert [] == place.publisher.succeed(*prune)["removed"]
    place.publisher.succeed("unpin", second["revision"])
    assert [second["revision"]] == place.publisher.succeed(*prune)["removed"]
    left = {entry["revision"] for entry in place.publisher.succeed("releases")["releases"]}
    assert {first["revision"], third["revision"]} == left
    assert {"c.py": b""} == place.current()


def test_a_release_is_promoted_as_it_is(place: Place) -> None:
    first = place.publish(A)["revision"]
    prd = Publishing(place.server, place.bucket, place.home, {"KEY_PATH": "prd"})
    url = f"s3://{place.bucket}/prd"

    assert "promoted" == prd.succeed("promote", place.publisher.url, url)["result"]
    second = place.publish(B)["revision"]
    broken = place.publish(BROKEN)["revision"]

    refused = prd.run("promote", place.publisher.url, url, "--gate", "syntax")
    assert 2 == refused.code and "a.py" in refused.err
    answer = prd.succeed("promote", place.publisher.url, url, "--gate", "syntax", second[:12])
    assert (second, first) == (answer["revision"], answer["previous"])
    assert {"added": ["docs/\u00dcberblick.md"], "changed": ["a.py"]} == {
        name: answer["changes"][name] for name in ("added", "changed")
    }
    assert broken == place.publisher.succeed("releases")["releases"][0]["revision"]
    bodies = {key: body for key, body in place.bodies().items() if key.startswith("prd/")}
    assert B == read_release(
        {PREFIX + key.removeprefix("prd/"): body for key, body in bodies.items()}
    )
    said = prd.run("promote", place.publisher.url, url, "--profile", "nobody")
    assert 3 == said.code and "nobody" in said.err


def test_what_differs_is_listed(on_moto: Place) -> None:
    on_moto.publish(A)
    after = on_moto.publish(B)["revision"]
    said = on_moto.publisher.run("diff", "previous", after[:12])

    assert (0, ["1 added, 1 changed, 2 removed"]) == (
        said.code,
        said.out.splitlines()[0].split(": ")[1:],
    )
    assert ["  + docs/\u00dcberblick.md", "  ~ a.py"] == said.out.splitlines()[1:3]
    listed = on_moto.publisher.run("releases", "--changes").out
    assert f"→ {after[:12]}: 1 added, 1 changed, 2 removed\n  + docs/" in listed
    assert after == on_moto.publisher.succeed("releases", "--changes")["changes"][0]["revision"]
    same = on_moto.publisher.succeed("diff", "current", f"{on_moto.dags}/")
    assert {"added": [], "changed": [], "removed": []} == same["changes"]
    wrong = on_moto.publisher.run("diff", "current", "v7")
    assert 2 == wrong.code and "'v7' is not a revision" in wrong.err


def test_what_people_see(place: Place) -> None:
    write_files(place.dags, {**A, ".git/config": b"", "__pycache__/a.pyc": b""})

    ran = place.publisher.run("publish", place.dags)

    lines = ran.out.splitlines()
    assert (0, "") == (ran.code, ran.err)
    assert "Left out: 2 (.git/, __pycache__/)" == lines[0]
    assert "the gate is off" in lines[1]
    assert ("no conditional writes" in ran.out) == (place.server.name == "rclone")
    assert lines[-1].startswith("Published ") and "3 files" in lines[-1]
    table = place.publisher.run("releases").out.splitlines()
    assert table[0].split()[:2] == ["REVISION", "CREATED"] and "current" in table[1]


def test_an_altered_bundle_is_replaced_by_a_second_publish(place: Place) -> None:
    place.publish(A)
    name = next(key for key in place.bodies() if key.endswith(".zip"))
    place.put(name.removeprefix(PREFIX), bytes(len(place.bodies()[name])))

    ran = place.publisher.run("publish", place.dags)

    assert (0, "") == (ran.code, ran.err)
    assert "Published" in ran.out and "rollback" not in ran.out
    assert A == place.current()
    assert "Unchanged" in place.publisher.run("publish", place.dags).out


def test_an_output_that_knows_no_such_letters_is_no_failure(on_moto: Place) -> None:
    write_files(on_moto.dags, {"a.py": b"", "\u00dcbung~": b""})

    ran = on_moto.publisher_with(PYTHONIOENCODING="ascii").run("publish", on_moto.dags)

    assert (0, "") == (ran.code, ran.err)
    assert "\\xdcbung~" in ran.out and "Published" in ran.out


def test_an_output_that_is_full_does_not_hide_what_was_done(on_moto: Place) -> None:
    write_files(on_moto.dags, A)

    with open("/dev/full", "w") as full:
        ran = on_moto.publisher.run("publish", on_moto.dags, stdout=full)

    assert 0 == ran.code
    assert "No space left on device" in ran.err and "Published" in ran.err
    assert A == on_moto.current()


def test_an_output_that_nobody_reads_is_no_failure(on_moto: Place) -> None:
    write_files(on_moto.dags, A)
    read, write = os.pipe()
    os.close(read)

    with os.fdopen(write, "w") as broken:
        ran = on_moto.publisher.run("publish", on_moto.dags, stdout=broken)

    assert (0, "") == (ran.code, ran.err)
    assert A == on_moto.current()


def test_publishers_at_once_leave_a_complete_release_and_losers_fail(place: Place) -> None:
    """
    Where conditions are not obeyed, or not atomically, more than one may believe that they won;
    what is current is whole even so.
    """
    place.publish({"before.py": b""})
    folders = [
        write_files(place.dags.with_name(f"dags-{number}"), {"a.py": b"%d" % number})
        for number in range(3)
    ]

    processes = [place.publisher.start("publish", folder, "--output", "json") for folder in folders]
    answers = [process.communicate(timeout=120) for process in processes]

    codes = [process.returncode for process in processes]
    facts = [json.loads(out) for out, _ in answers]
    winners = [number for number, code in enumerate(codes) if code == 0]
    assert winners, answers
    assert place.current() in [{"a.py": b"%d" % number} for number in winners]
    for code, told in zip(codes, facts, strict=True):
        if code:
            assert (3, "publish_conflict") == (code, told["reason"])
            assert "meanwhile" in told["error"]


@pytest.mark.parametrize("layout", ["in-place", "snapshot"])
def test_a_daemon_follows_publishes_and_roll_backs(
    on_moto: Place, tmp_path: Path, layout: str
) -> None:
    target = tmp_path / "target"
    shown = target if layout == "in-place" else target / "current"
    on_moto.publish(A)
    settings = {"S3_SYNC_SOURCE": "release", "S3_SYNC_LAYOUT": layout}

    def files() -> dict[str, bytes]:
        return {
            str(path.relative_to(shown)): path.read_bytes()
            for path in sorted(shown.rglob("*"))
            if path.is_file() and ".s3-sync" not in path.relative_to(shown).parts
        }

    with Daemon(on_moto.server, on_moto.bucket, target, PREFIX, settings=settings) as daemon:
        daemon.wait_until_synced()
        assert files() == A
        on_moto.publish(B)
        daemon.sync()
        assert files() == B
        on_moto.publisher.succeed("rollback")
        daemon.sync()
        assert files() == A


def test_an_executable_file_is_one_at_the_other_end(on_moto: Place, tmp_path: Path) -> None:
    write_files(on_moto.dags, A)
    (on_moto.dags / "a.py").chmod(0o755)
    on_moto.publisher.succeed("publish", on_moto.dags)
    settings = {"S3_SYNC_SOURCE": "release", "S3_SYNC_ONE_SHOT": "true"}

    with Daemon(
        on_moto.server, on_moto.bucket, tmp_path / "target", PREFIX, settings=settings
    ) as daemon:
        assert 0 == daemon.wait_for_exit().code

    assert 0o755 == (tmp_path / "target" / "a.py").stat().st_mode & 0o777
    assert 0o644 == (tmp_path / "target" / "empty").stat().st_mode & 0o777


def test_the_gate_names_every_broken_file_and_uploads_nothing(on_moto: Place) -> None:
    on_moto.publish(A)
    before = on_moto.bodies()

    ran = on_moto.publisher.run("publish", write_files(on_moto.dags, BROKEN), "--gate", "syntax")

    assert (2, "") == (ran.code, ran.out)
    assert "a.py:1: '(' was never closed" in ran.err and "b.py:1:" in ran.err
    assert before == on_moto.bodies()


def test_a_command_as_gate_sees_what_would_be_released_and_nothing_else(
    on_moto: Place, tmp_path: Path
) -> None:
    write_files(on_moto.dags, {**A, ".git/config": b"", "b.pyc": b""})
    (on_moto.dags / "link.py").symlink_to("a.py")
    seen = tmp_path / "seen"
    script = write_files(tmp_path / "bin", {"gate": b"#!/bin/sh\nfind . -type f | sort > $SEEN\n"})
    (script / "gate").chmod(0o755)
    publisher = on_moto.publisher_with(
        S3_SYNC_GATE="command",
        S3_SYNC_GATE_COMMAND=str(script / "gate"),
        S3_SYNC_GATE_ENV="SEEN",
        SEEN=str(seen),
    )

    facts = publisher.succeed("publish", on_moto.dags)

    assert "command" == facts["gate"]
    assert [f"./{name}" for name in sorted([*A, "link.py"])] == seen.read_text().splitlines()
    assert [] == list(on_moto.home.glob("s3-sync-*"))


# An Airflow that finds in each file a DAG of its name, `no.py` broken, and dies of `kill.py`.
AIRFLOW = b"""#!/bin/sh
exec >"$2/answers"
echo '{"airflow": "3.3.2"}'
for path in *.py; do
  case $path in
    no.py) echo '{"file": "no.py", "errors": {"no.py": "No module named '"'pandas'"'"}}' ;;
    kill.py) kill -KILL $$ ;;
    *) echo '{"file": "'"$path"'", "dags": ["'"${path%.py}"'"]}' ;;
  esac
done
echo '{"done": 1}'
"""


@pytest.fixture
def airflow(on_moto: Place, tmp_path: Path) -> Publishing:
    """A publisher on whose PATH there is a Python that has Airflow."""
    (write_files(tmp_path / "bin", {"python": AIRFLOW}) / "python").chmod(0o755)
    return on_moto.publisher_with(PATH=f"{tmp_path}/bin:/usr/bin:/bin")


def test_what_airflow_said_is_printed_kept_and_compared(
    on_moto: Place, airflow: Publishing
) -> None:
    gate = ("--gate", "airflow")
    first = airflow.succeed("publish", write_files(on_moto.dags, {"a.py": b"", "b.py": b""}), *gate)
    second = airflow.run("publish", write_files(on_moto.dags, {"b.py": b"", "c.py": b""}), *gate)

    assert ("airflow", "3.3.2", ["a", "b"]) == (
        first["gate"],
        first["airflow"]["version"],
        first["airflow"]["dag_ids"],
    )
    assert second.code == 0, second
    lines = second.out.splitlines()
    assert lines[0].startswith("Checked by Airflow 3.3.2 at ") and lines[0].endswith(": 2 DAGs")
    listed = ["DAGs: 1 added, 1 removed", "  + c", "  - a"]
    assert listed == lines[-4:-1]
    assert listed == airflow.run("diff", "previous", "current").out.splitlines()[-3:]
    newest, oldest = airflow.succeed("releases")["releases"]
    assert (["b", "c"], ["a", "b"]) == (newest["airflow"]["dag_ids"], oldest["airflow"]["dag_ids"])
    prd = f"s3://{on_moto.bucket}/prd"
    promoted = airflow.succeed("promote", airflow.url, prd, *gate)
    assert ("promoted", 2) == (promoted["result"], promoted["airflow"]["dags"])


def test_what_airflow_refuses_is_not_uploaded_unless_it_may_be_missing(
    on_moto: Place, airflow: Publishing
) -> None:
    write_files(on_moto.dags, {"no.py": b"", "a.py": b""})
    publish = ("publish", on_moto.dags, "--gate", "airflow")

    refused = airflow.run(*publish, "--output", "json")
    assert 2 == refused.code
    said = "no.py: No module named 'pandas' (package pandas is missing here)"
    [problem] = refused.facts()["problems"]
    assert ("revision_refused", "no.py", "package:pandas") == (
        refused.facts()["reason"],
        problem["path"],
        problem["lacks"],
    )
    assert f"    {said}\n" in refused.err and "--gate-allow 'package:pandas'" in refused.err
    assert {} == on_moto.bodies()

    allowed = airflow.run(*publish, "--gate-allow", "package:pan*")
    assert allowed.code == 0, allowed
    assert "  allowed: package:pandas is missing, no.py: No module named 'pandas'" in allowed.out
    assert "1 DAGs, 1 files not loaded" in allowed.out


def test_a_gate_without_a_verdict_publishes_nothing_and_is_no_refusal(
    on_moto: Place, airflow: Publishing
) -> None:
    ran = airflow.run("publish", write_files(on_moto.dags, {"kill.py": b""}), "--gate", "airflow")

    assert 3 == ran.code
    assert "no verdict" in ran.err and "signal 9" in ran.err
    assert {} == on_moto.bodies()


@pytest.mark.parametrize("link", [True, False])
def test_a_folder_that_is_no_release_never_comes_to_airflow(
    on_moto: Place, airflow: Publishing, link: bool
) -> None:
    write_files(on_moto.dags, {})
    if link:
        (on_moto.dags / "kill.py").symlink_to("/etc/hostname")

    ran = airflow.run("publish", on_moto.dags, "--gate", "airflow")

    assert 2 == ran.code
    assert ("leads out of the folder" if link else "no file to release") in ran.err


def commit(folder: Path, message: str) -> str:
    """Commit all of a folder; return the commit."""
    git = [
        *("git", "-C", str(folder), "-c", "user.name=Ada", "-c", "user.email=ada@example.com"),
        *("-c", "init.defaultBranch=main", "-c", "commit.gpgsign=false"),
    ]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", message]):
        subprocess.run(
            [*git, *arguments], check=True, env={"PATH": os.environ["PATH"], "HOME": "/"}
        )
    found = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return found.stdout.strip()


def test_commit_author_and_message_come_from_git(on_moto: Place) -> None:
    head = commit(write_files(on_moto.dags, A), "Sales by country\n\nLong story")

    clean = on_moto.publisher.succeed("publish", on_moto.dags)["origin"]
    (on_moto.dags / "a.py").write_text("altered")
    dirty = on_moto.publisher.succeed("publish", on_moto.dags)["origin"]

    assert (head, "Ada <ada@example.com>", "Sales by country") == (
        clean["commit"],
        clean["author"],
        clean["message"],
    )
    assert f"{head}-dirty" == dirty["commit"]


def test_hostile_names_and_messages_do_not_steer_a_terminal(on_moto: Place) -> None:
    on_moto.publish(A, "--message", "\x1b]0;owned\x07 red \u202e")
    (on_moto.dags / "bad\x1b[31m").symlink_to("/etc/passwd")

    listed = on_moto.publisher.run("releases").out
    refused = on_moto.publisher.run("publish", on_moto.dags).err

    assert "owned" in listed and "bad" in refused
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", listed + refused)


def test_progress_is_shown_on_a_terminal_only_and_is_gone_at_the_end(on_moto: Place) -> None:
    write_files(on_moto.dags, {f"{number}.py": b"print()\n" * number for number in range(30)})
    ours, theirs = pty.openpty()

    ran = on_moto.publisher.run("publish", on_moto.dags, "--output", "json", stderr=theirs)
    os.close(theirs)
    shown = ""
    with contextlib.suppress(OSError):  # the other side is closed: all is read
        while block := os.read(ours, 1 << 16):
            shown += block.decode()
    os.close(ours)

    assert "published" == ran.facts()["result"]
    assert "Reading files: 30 of 30" in shown and "Uploading" in shown
    assert shown.endswith("\r\x1b[K")


# What is wrong with what was typed, or with the folder: exit code 2, nothing uploaded.


@pytest.fixture
def refused(on_moto: Place) -> Iterator[Place]:
    """A bucket with a release, and the folder it came from; the bucket is untouched at the end."""
    write_files(on_moto.dags, A)
    for name, body in make_release(A, at=datetime.now(UTC)).objects().items():
        on_moto.put(name, body)
    before = on_moto.bodies()
    yield on_moto
    assert before == on_moto.bodies()


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["publish", "{folder}/nowhere"], ["/nowhere is not a folder"]),
        (["publish", "{dags}", "bucket/prefix"], ["'bucket/prefix'", "s3://BUCKET/PREFIX"]),
        (["publish", "{dags}", "s3://"], ["AWS_BUCKET", "s3://BUCKET/PREFIX"]),
        (["publish", "{dags}", "--exclude", "!"], ["--exclude", "'!'"]),
        (["publish", "{dags}", "--gate", "command"], ["S3_SYNC_GATE_COMMAND"]),
        (
            ["publish", "{dags}", "--gate", "airflow", "--airflow-python", "/nowhere"],
            ["--airflow-python='/nowhere'", "not a program"],
        ),
        (
            ["publish", "{dags}", "--airflow-python", "/bin/sh", "--gate-allow", "package:x"],
            ["--airflow-python='/bin/sh'", "--gate-allow='package:x'", "only with"],
        ),
        (
            ["publish", "{dags}", "--gate", "airflow", "--gate-allow", "x"],
            ["'x' is not KIND:NAME", "package, variable, connection"],
        ),
        (["publish", "{dags}", "--gate", "syntax", "--gate-timeout", "x"], ["GATE_TIMEOUT='x'"]),
        (["publish"], ["DIR"]),
        (["rollback", "0123456789ab"], ["0123456789ab", "s3-sync releases"]),
        (["rollback", "HEAD~1"], ["'HEAD~1'", "64 hexadecimal digits"]),
        (["pin", "0123456789ab"], ["no release 0123456789ab"]),
        (["pin", "s3://bucket/prefix"], ["'s3://bucket/prefix' is not a revision"]),
        (["prune-releases", "--keep-for", "soon"], ["'soon'", "30s, 5m"][:1]),
        (["prune-releases", "--keep", "x"], ["'x'"]),
    ],
)
def test_what_was_typed_wrong_is_reported(
    refused: Place, arguments: list[str], names: list[str]
) -> None:
    filled = [text.format(folder=refused.dags.parent, dags=refused.dags) for text in arguments]

    ran = refused.publisher.run(*filled)

    assert (2, "") == (ran.code, ran.out), ran
    assert all(name in ran.err for name in names), ran.err


def test_a_dry_run_of_every_command_writes_nothing(refused: Place) -> None:
    publisher = refused.publisher_with(S3_SYNC_DRY_RUN="1")
    revision = make_release(A).revision

    results = [
        publisher.succeed(*arguments)["result"]
        for arguments in (
            ("publish", write_files(refused.dags, B)),
            ("pin", revision),
            ("unpin", revision),
            ("prune-releases",),
        )
    ]

    assert ["planned", "planned", "unchanged", "planned"] == results


def test_a_slip_in_a_setting_is_reported(refused: Place) -> None:
    publisher = refused.publisher_with(S3_SYNC_GATES="syntax")

    ran = publisher.run("publish", refused.dags, "--output", "json")

    assert (2, "settings_rejected") == (ran.code, ran.facts()["reason"])
    assert "S3_SYNC_GATE" in ran.err


def test_a_bad_folder_is_reported_before_s3_is_asked(on_moto: Place) -> None:
    publisher = on_moto.publisher_with(AWS_ENDPOINT_URL=f"http://127.0.0.1:{closed_port()}")

    ran = publisher.run("publish", on_moto.dags / "nowhere")

    assert (2, "") == (ran.code, ran.out), ran
    assert "nowhere is not a folder" in ran.err


@pytest.mark.parametrize(
    ("modes", "said"),
    [
        ({"a.py": 0, "empty": 0}, ["'a.py' cannot be read: Permission denied", "'empty'"]),
        ({"sub": 0o644}, ["'sub/b.py' cannot be read: Permission denied"]),
        ({"": 0}, ["dags' cannot be read: Permission denied"]),
    ],
    ids=["files", "a folder that can be listed and not entered", "the folder itself"],
)
def test_everything_unreadable_is_named(
    refused: Place, open_folder: Path, modes: dict[str, int], said: list[str]
) -> None:
    write_files(open_folder / "dags", A | {"sub/b.py": b""})
    for name, mode in modes.items():
        (open_folder / "dags" / name).chmod(mode)
    program = as_user(open_folder / "bin", S3_SYNC, 4711, 0)
    publisher = refused.publisher_with(HOME="/", TMPDIR="/tmp")

    ran = publisher.run("publish", open_folder / "dags", program=program)

    assert (2, "") == (ran.code, ran.out), ran
    assert all(part in ran.err for part in said), ran.err
    assert "Traceback" not in ran.err


# What S3 refuses: exit code 3.


def test_a_missing_bucket_is_reported(place: Place) -> None:
    write_files(place.dags, A)

    ran = place.publisher.run("publish", place.dags, "s3://no-such-bucket/dags", "--output", "json")

    assert (3, "bucket_not_found") == (ran.code, ran.facts()["reason"])
    assert "no-such-bucket" in ran.err and "AWS_BUCKET" in ran.err


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"AWS_ENDPOINT_URL": "closed"}, "endpoint_unreachable"),
        ({"AWS_ENDPOINT_URL": "http://no-such-host.invalid"}, "name_unresolved"),
        ({"AWS_ACCESS_KEY_ID": ""}, "credentials_missing"),
        ({"AWS_PROFILE": "nobody"}, "credentials_missing"),
    ],
)
def test_a_server_that_cannot_be_asked_is_reported(
    on_moto: Place, settings: dict[str, str], reason: str
) -> None:
    if settings.get("AWS_ENDPOINT_URL") == "closed":
        settings = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{closed_port()}"}
    publisher = on_moto.publisher_with(
        AWS_CONFIG_FILE="/dev/null", AWS_MAX_ATTEMPTS="1", **settings
    )

    ran = publisher.run("publish", write_files(on_moto.dags, A), "--output", "json")

    assert (3, reason) == (ran.code, ran.facts()["reason"]), ran
    assert ran.err.count("\n") <= 2 and "Traceback" not in ran.err
