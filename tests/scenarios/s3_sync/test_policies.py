"""What is deleted and what is selected: the deletion policies and the filters."""

from pathlib import Path

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.aws.fake_s3 import FakeS3
from tests.support.s3_sync.scripted import FILES, published


@pytest.mark.parametrize(
    ("policy", "left"),
    [("managed", {"foreign.py"}), ("none", {"foreign.py", "pkg/b.py"}), ("all", set())],
)
def test_each_deletion_policy_deletes_its_files(
    s3: FakeS3, start: StartDaemon, target: Path, policy: str, left: set[str]
) -> None:
    """A filter that is added later deletes as the bucket would."""
    settings = {"S3_SYNC_DELETE": policy, "S3_SYNC_INCLUDE": "*.py"}
    s3.put("dags/notes.md", b"# notes")
    daemon = start(settings).until_synced()
    (target / "foreign.py").write_text("someone else's")
    (target / "pkg/__pycache__").mkdir()
    (target / "pkg/__pycache__/b.cpython-313.pyc").write_bytes(b"bytecode")
    s3.delete("dags/pkg/b.py")
    daemon.sync()

    always = {"a.py", "pkg/__pycache__/b.cpython-313.pyc", "pkg/empty.py"}
    assert always | left == published(target).keys()

    daemon.terminate()
    start(settings | {"S3_SYNC_EXCLUDE": "pkg/e*"}).until_synced()
    assert (policy == "none") == ("pkg/empty.py" in published(target))


def test_an_empty_listing_deletes_nothing_unless_it_is_allowed(
    s3: FakeS3, start: StartDaemon, target: Path
) -> None:
    daemon = start().until_synced()
    (target / "foreign.log").write_text("stays")
    s3.objects.clear()

    assert "source_empty" == daemon.sync()["reason"]
    assert FILES.keys() < published(target).keys()
    assert 200 == daemon.get("/readyz").status

    daemon.terminate()
    allowed = start({"S3_SYNC_ALLOW_EMPTY": "true"}).until_synced()
    assert {"foreign.log"} == published(target).keys()
    assert 200 == allowed.get("/readyz").status
