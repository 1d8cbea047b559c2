"""
The image of s3-sync: what is in it, and that it works hardened against a real S3 server.
"""

import contextlib
import json
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.images.container import Image, S3Container
from tests.images.locks import assert_are_locked
from tests.support.servers import RcloneServer
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
SIZE_OVER_BASE_BYTES = 60_000_000

LIST_SERVICES = r"""
import inspect, json, re
import botocore.credentials, botocore.session, botocore.tokens
source = "".join(map(inspect.getsource, (botocore.credentials, botocore.tokens)))
client = r"client(?:_creator)?\(\s*(?:self\._session, )?['\"]([a-z-]+)['\"]"
known = botocore.session.get_session().get_available_services()
print(json.dumps([known, re.findall(client, source)]))
"""
LIST_CONTENTS = """
import importlib.metadata, json, os, shutil
print(json.dumps({
    "distributions": [d.name for d in importlib.metadata.distributions()],
    "programs": sorted(os.listdir("/opt/venv/bin")),
    "compilers": [name for name in ("cc", "gcc", "g++", "clang", "make") if shutil.which(name)],
    "opt": os.listdir("/opt"),
    "root": os.listdir("/"),
}))
"""

LIST_MODULES_WITHOUT_BYTECODE = """
import {module}, json, os, sys
specs = [found.__spec__ for found in list(sys.modules.values()) if getattr(found, "__spec__", None)]
print(json.dumps([s.name for s in specs if s.cached and not os.path.exists(s.cached)]))
"""


@pytest.fixture(scope="module")
def contents(image: Image) -> dict[str, Any]:
    """
    What a process inside the image finds there.
    """
    found: dict[str, Any] = json.loads(image.run("-c", LIST_CONTENTS, entrypoint="python"))
    return found


@pytest.fixture
def bucket(rclone: RcloneServer) -> str:
    """
    A bucket with two DAG files under `team/dags/`, and one beside it.
    """
    name = rclone.new_bucket("image")
    for key in ("team/dags/sales.py", "team/dags/lib/rates.py", "team/other.py"):
        rclone.client().put_object(Bucket=name, Key=key, Body=f"# {key}\n".encode())
    return name


def tree(folder: Path) -> dict[str, str]:
    """
    The published files: relative path → content.

    The daemon may remove folders and files meanwhile: what vanishes is not there.
    """
    found = {}
    for here, _, names in os.walk(folder):
        for name in names:
            path = Path(here, name)
            inside = path.relative_to(folder)
            if inside.parts[0] != ".s3-sync":
                with contextlib.suppress(FileNotFoundError):
                    found[str(inside)] = path.read_text()
    return found


def test_runs_the_daemon_as_the_charts_user_without_a_shell(image: Image) -> None:
    config = image.inspect()["Config"]

    assert "50000:0" == config["User"]
    assert ["s3-sync"] == config["Entrypoint"]
    assert not config.get("Cmd")
    assert not config.get("Healthcheck")
    assert config.get("StopSignal", "SIGTERM") in ("SIGTERM", "15")
    assert {"HOME=/tmp", "PYTHONUNBUFFERED=1"} <= set(config["Env"])


def test_knows_every_service_that_is_asked_for_credentials(image: Image) -> None:
    """Whatever botocore's ways to them create a client of, and S3."""
    said = image.run("-c", LIST_SERVICES, entrypoint="python")

    known, asked = json.loads(said)
    assert {"s3", *asked} == set(known)


def test_is_small(image: Image) -> None:
    print(f"over its base: {image.over_base_bytes / 1e6:.1f} MB")

    assert image.over_base_bytes <= SIZE_OVER_BASE_BYTES


def test_holds_what_the_lock_names_and_nothing_else(contents: dict[str, Any]) -> None:
    assert_are_locked("s3-sync", contents["distributions"])
    assert ["venv"] == contents["opt"]
    assert "src" not in contents["root"]


def test_has_no_tool_that_builds_or_installs(contents: dict[str, Any]) -> None:
    installers = re.compile(r"pip|uv|wheel|easy_install|flit")

    assert [] == [program for program in contents["programs"] if installers.match(program)]
    assert [] == contents["compilers"]


@pytest.mark.parametrize("module", ["s3_sync.command", "sidecar_runtime.aws.chain"])
def test_compiles_nothing_at_start(image: Image, module: str) -> None:
    """
    Isolated, as the daemon starts its child; Python reads its encodings before any site package.
    """
    program = LIST_MODULES_WITHOUT_BYTECODE.format(module=module)

    without: list[str] = json.loads(image.run("-I", "-c", program, entrypoint="python"))

    assert [] == [name for name in without if not name.startswith("encodings")]


@pytest.mark.parametrize("user", ["50000:0", "1000710000:0"], ids=["chart", "arbitrary"])
def test_follows_the_bucket_hardened(
    image: Image, rclone: RcloneServer, bucket: str, tmp_path: Path, user: str
) -> None:
    client, target = rclone.client(), tmp_path / "dags"
    settings = {"KEY_PATH": "team/dags", "INTERVAL": "0.5"}
    first = {"sales.py": "# team/dags/sales.py\n", "lib/rates.py": "# team/dags/lib/rates.py\n"}

    with S3Container(image, rclone, bucket, target, user, settings) as container:
        container.wait_until_ready()
        assert first == tree(target)
        published = (target / "lib/rates.py").stat()
        assert (int(user.split(":")[0]), 0) == image.owner(target / "lib/rates.py")
        assert 0o644 == stat.S_IMODE(published.st_mode)

        client.put_object(Bucket=bucket, Key="team/dags/sales.py", Body=b"# second\n")
        client.delete_object(Bucket=bucket, Key="team/dags/lib/rates.py")
        wait_until(lambda: tree(target) == {"sales.py": "# second\n"}, "the change arrives")

        assert 200 == container.get("/healthz").status
        assert 200 == container.get("/readyz").status
        assert container.metrics()['sidecar_ready{sidecar="s3-sync"}'] == 1
        code = container.terminate().code

    assert 0 == code
    assert [] == container.complaints()


def test_one_shot_publishes_and_ends(
    image: Image, rclone: RcloneServer, bucket: str, tmp_path: Path
) -> None:
    target = tmp_path / "dags"
    settings = {"KEY_PATH": "team/dags", "S3_SYNC_ONE_SHOT": "true"}

    with S3Container(image, rclone, bucket, target, settings=settings) as container:
        ended = container.wait_for_exit()

    assert 0 == ended.code
    assert {"sales.py", "lib/rates.py"} == tree(target).keys()
    assert [] == container.find_events("http_listening")
    assert [] == container.complaints()


def test_prints_its_version_and_help(image: Image) -> None:
    project = tomllib.loads((ROOT / "sidecars/s3-sync/pyproject.toml").read_text())["project"]

    assert project["version"] in image.run("--version")
    assert "check" in image.run("--help")
