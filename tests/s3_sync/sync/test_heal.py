"""Files that a failed cycle forgot; for damaged files, see test_snapshot_healing.py."""

from sidecar_runtime.errors import SidecarError
from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import error, is_get
from tests.support.waiting import wait_until

SETTINGS = {"S3_SYNC_DELETE": "none", "S3_SYNC_SETTLE": "1s"}
FILES = [f"{number}.py" for number in range(12)]


def test_downloads_a_relisted_file_that_a_failed_cycle_forgot(process: Process) -> None:
    """Its key and file were gone, and S3 failed before the disk was inspected again."""
    process.s3.put_each(FILES, b"v = 1\n")
    process.start(SETTINGS)
    wait_until(lambda: process.cycle().result != "settling", "it is published")
    process.s3.delete("0.py")
    (process.folder / "0.py").unlink()
    process.s3.put_each(FILES[1:], b"v = 2\n")
    process.s3.inject(error(503, "SlowDown"), is_get())
    wait_until(lambda: _fails(process), "the change has settled, and cannot be read")
    process.s3.heal()
    process.s3.put("0.py", b"v = 3\n")

    wait_until(lambda: process.cycle().result != "settling", "it is published")
    assert b"v = 3\n" == process.shown["0.py"]


def _fails(process: Process) -> bool:
    try:
        process.cycle()
    except SidecarError:
        return True
    return False
