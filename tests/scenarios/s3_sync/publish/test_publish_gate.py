"""The input, output and verdicts of the gate of `publish`, with a real server."""

from pathlib import Path

from tests.scenarios.s3_sync.publish.place import BROKEN, A, Place
from tests.support.s3_sync.publishing import write_files
from tests.support.scripts import script


def test_reports_every_broken_file_and_uploads_nothing(on_moto: Place) -> None:
    on_moto.publish(A)
    before = on_moto.bodies()

    ran = on_moto.publisher.run(
        "publish", write_files(on_moto.dags, BROKEN), "--gate", "syntax"
    )

    assert (2, "") == (ran.code, ran.out)
    assert "a.py:1: '(' was never closed" in ran.err and "b.py:1:" in ran.err
    assert before == on_moto.bodies()


def test_gate_command_sees_only_the_files_that_would_be_released(
    on_moto: Place, tmp_path: Path
) -> None:
    write_files(on_moto.dags, {**A, ".git/config": b"", "b.pyc": b""})
    (on_moto.dags / "link.py").symlink_to("a.py")
    seen = tmp_path / "seen"
    gate = script(tmp_path / "gate", "find . -type f | sort > $SEEN")
    publisher = on_moto.publisher_with(
        S3_SYNC_GATE="command",
        S3_SYNC_GATE_COMMAND=gate,
        S3_SYNC_GATE_ENV="SEEN",
        SEEN=str(seen),
    )

    assert "command" == publisher.succeed("publish", on_moto.dags)["gate"]
    assert [
        f"./{name}" for name in sorted([*A, "link.py"])
    ] == seen.read_text().splitlines()
    assert [] == list(on_moto.home.glob("s3-sync-*"))


def test_no_verdict_publishes_nothing(on_moto: Place, tmp_path: Path) -> None:
    publisher = on_moto.publisher_with(
        S3_SYNC_GATE="command",
        S3_SYNC_GATE_COMMAND=script(tmp_path / "gate", "exit 75"),
    )

    dags = write_files(on_moto.dags, A)
    ran = publisher.run("publish", dags, "--output", "json")

    assert (3, "gate_undecided") == (ran.code, ran.facts()["reason"]), ran
    assert {} == on_moto.bodies()
