"""Generated histories, compared with a model of the bucket, and with `aws s3 sync`."""

import random
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.scenarios.s3_sync.histories import FOREIGN, Bucket, History
from tests.support.aws.servers import S3Server
from tests.support.daemon import VENV_BIN, Daemon
from tests.support.s3_sync.target_model import (
    difference,
    empty_folders,
    expect,
    leftovers,
    read_tree,
)

KEY_PATHS = ("", "dags", "team a/d\u00e4gs", "a+b/100%")
STEPS = 10


@pytest.mark.timeout(7_200)
def test_tree_equals_the_model_after_every_cycle(
    server: S3Server, counts: Counts, tmp_path: Path
) -> None:
    first = 0 if server.takes_any_key else 1_000_000
    for seed in range(first, first + counts.histories):
        _run_history(server, tmp_path / str(seed), seed)


def _run_history(server: S3Server, folder: Path, seed: int) -> None:
    """
    Repeat changes, a cycle (sometimes a restart) and a comparison, all from one seed.
    """
    choice = random.Random(seed)
    target = folder / "target"
    folder.mkdir()
    bucket = Bucket(server, choice.choice(KEY_PATHS))
    history = History(bucket, target, seed)
    history.step(choice.randrange(30))
    with Daemon(server, bucket.name, target, bucket.key_path) as daemon:
        try:
            daemon.wait_until_synced()
            _compare(daemon, history)
            for _ in range(STEPS):
                history.step(choice.randrange(1, 15))
                ending = choice.choice(("", "", "", "", "", "SIGTERM", "SIGKILL"))
                if ending:
                    history.deeds.append(ending)
                    if ending == "SIGTERM":
                        assert daemon.terminate().code == 0
                    daemon.kill()
                    daemon.start().wait_until_synced()
                else:
                    assert daemon.sync()["event"] == "cycle_finished"
                _compare(daemon, history)
            is_blocked = "blocked" in _skipped_by_reason(daemon)
            assert daemon.sync()["result"] == ("partial" if is_blocked else "unchanged")
        except AssertionError as error:
            deeds = "\n".join(history.deeds)
            raise AssertionError(
                f"{error}\nserver {server.name}, seed {seed}, KEY_PATH {bucket.key_path!r}\n{deeds}"
                f"\n{daemon.log()}"
            ) from error


def _compare(daemon: Daemon, history: History) -> None:
    """Assert that the target equals the model and has nothing else."""
    expectation = expect(
        history.bucket.objects, history.bucket.key_path, history.foreign
    )
    files = expectation.files | dict.fromkeys(history.foreign, FOREIGN)

    assert {} == difference(files, read_tree(daemon.target))
    assert [] == empty_folders(daemon.target)
    assert [] == leftovers(daemon.target)
    assert Counter(expectation.skipped.values()) == _skipped_by_reason(daemon)
    assert [] == daemon.stray_lines


def _skipped_by_reason(daemon: Daemon) -> dict[str, int]:
    return {
        sample.partition('reason="')[2].partition('"')[0]: int(value)
        for sample, value in daemon.metrics().items()
        if sample.startswith(("s3_sync_skipped_keys{", "s3_sync_unread_objects{"))
        and value
    }


def test_adopts_a_folder_filled_by_aws_s3_sync_without_downloading(
    server: S3Server, tmp_path: Path
) -> None:
    bucket = Bucket(server, "dags")
    for number in range(40):
        bucket.put(f"dags/team{number % 4}/dag{number}.py", b"x = %d\n" % number)
    target = tmp_path / "target"
    subprocess.run(
        [f"{VENV_BIN}/aws", "s3", "sync", f"s3://{bucket.name}/dags", target],
        env={"PATH": f"{VENV_BIN}:/usr/bin:/bin", "HOME": str(tmp_path)}
        | server.environment(),
        check=True,
        capture_output=True,
    )
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*.py")}

    with Daemon(server, bucket.name, target, "dags") as daemon:
        finished = daemon.wait_until_synced()
        bucket.delete("dags/team0/dag0.py")
        daemon.sync()

    assert (40, 0) == (finished["files_published"], finished["downloaded_bytes"])
    after = {path: path.stat().st_mtime_ns for path in target.rglob("*.py")}
    assert before.keys() - after.keys() == {target / "team0/dag0.py"}
    assert after.items() <= before.items()
