"""
The image of s3-sync: its botocore, and that it works hardened with a real S3 server.
"""

import json
from pathlib import Path

import pytest

from tests.images.container import Container, Image
from tests.support.aws.servers import RcloneServer
from tests.support.daemon import Daemon

LIST_SERVICES = r"""
import inspect, json, re
import botocore.credentials, botocore.session, botocore.tokens
source = "".join(map(inspect.getsource, (botocore.credentials, botocore.tokens)))
client = r"client(?:_creator)?\(\s*(?:self\._session, )?['\"]([a-z-]+)['\"]"
known = botocore.session.get_session().get_available_services()
print(json.dumps([known, re.findall(client, source)]))
"""


@pytest.fixture
def bucket(rclone: RcloneServer) -> str:
    """
    A bucket with two DAG files under `team/dags/`, and one file elsewhere.
    """
    name = rclone.new_bucket("image")
    for key in ("team/dags/sales.py", "team/dags/lib/rates.py", "team/other.py"):
        rclone.client().put_object(Bucket=name, Key=key, Body=f"# {key}\n".encode())
    return name


def test_botocore_contains_only_s3_and_the_credential_services(image: Image) -> None:
    """Botocore's credential and token providers create clients of these services."""
    known, asked = json.loads(image.run("-c", LIST_SERVICES, entrypoint="python"))
    assert {"s3", *asked} == set(known)


@pytest.mark.parametrize(
    "user", ["50000:0", "1000710000:0"], ids=["chart", "arbitrary"]
)
def test_follows_the_bucket_in_a_hardened_container(
    image: Image, rclone: RcloneServer, bucket: str, tmp_path: Path, user: str
) -> None:
    target = tmp_path / "dags"
    settings = {"KEY_PATH": "team/dags", "INTERVAL": "0.5"}
    first = {
        "sales.py": "# team/dags/sales.py\n",
        "lib/rates.py": "# team/dags/lib/rates.py\n",
    }

    daemon = Daemon(rclone, bucket, target, settings=settings)
    with Container(
        image, {**daemon.environment}, daemon.home, [target], user=user
    ) as container:
        container.wait_until_ready()
        shown = [path for path in target.rglob("*.py") if ".s3-sync" not in path.parts]
        assert first == {
            str(path.relative_to(target)): path.read_text() for path in shown
        }
        assert (int(user.split(":")[0]), 0) == image.owner(target / "lib/rates.py")
        assert 200 == container.get("/healthz").status
        code = container.terminate().code

    assert 0 == code
    assert [] == container.complaints()
