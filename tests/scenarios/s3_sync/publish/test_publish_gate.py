"""The input, output and verdicts of the gate of `publish`."""

from pathlib import Path

from tests.scenarios.s3_sync.publish.place import BROKEN, A
from tests.scenarios.s3_sync.publish.site import Site
from tests.support.s3_sync.publishing import write_files
from tests.support.scripts import script


def test_reports_every_broken_file_and_uploads_nothing(site: Site) -> None:
    site.publish(A)
    before = dict(site.s3.objects)

    ran = site.run("publish", write_files(site.dags, BROKEN), "--gate", "syntax")

    assert (2, "") == (ran.code, ran.out)
    assert "a.py:1: '(' was never closed" in ran.err and "b.py:1:" in ran.err
    assert before == site.s3.objects


def test_gate_command_sees_only_the_files_that_would_be_released(
    site: Site, tmp_path: Path
) -> None:
    write_files(site.dags, {**A, ".git/config": b"", "b.pyc": b""})
    (site.dags / "link.py").symlink_to("a.py")
    (site.dags / "linked").symlink_to("sql")
    seen = tmp_path / "seen"
    # the copy that a killed publisher has left
    write_files(site.folder / "home/s3-sync-scratch-killed", A)
    site.environment |= {
        "S3_SYNC_GATE": "command",
        "S3_SYNC_GATE_COMMAND": script(
            tmp_path / "gate", "find . -type f | sort > $SEEN"
        ),
        "S3_SYNC_GATE_ENV": "SEEN",
        "SEEN": str(seen),
    }

    assert "command" == site.succeed("publish", site.dags)["gate"]
    assert [
        f"./{name}" for name in sorted([*A, "link.py", "linked/Q3 report (final).sql"])
    ] == seen.read_text().splitlines()
    assert [] == list(site.folder.glob("*/s3-sync-*"))
    seen.unlink()
    assert "unchanged" == site.succeed("publish", site.dags)["result"]
    assert not seen.exists(), "what is current is not loaded again"


def test_no_verdict_publishes_nothing(site: Site, tmp_path: Path) -> None:
    site.environment["S3_SYNC_GATE_COMMAND"] = script(tmp_path / "gate", "exit 75")

    site.refuses("gate_undecided", A, "--gate", "command")
    assert {} == site.s3.objects
