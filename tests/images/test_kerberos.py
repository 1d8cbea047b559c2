"""
The image of the kerberos sidecar: what is in it, and that it works hardened against a real KDC.
"""

import json
import os
import re
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.images.container import Container, Image
from tests.images.locks import assert_are_locked
from tests.support.kdc import Kdc, run_client, skip_without_kdc
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
SIZE_OVER_BASE_BYTES = 30_000_000

LIST_CONTENTS = """
import importlib.metadata, json, os, shutil
programs = ("cc", "gcc", "g++", "clang", "make", "kinit", "klist", "kadmin", "krb5-config")
print(json.dumps({
    "distributions": [d.name for d in importlib.metadata.distributions()],
    "programs": sorted(os.listdir("/opt/venv/bin")),
    "unwanted": [name for name in programs if shutil.which(name)],
    "headers": os.path.exists("/usr/include/gssapi.h"),
    "opt": os.listdir("/opt"),
    "root": os.listdir("/"),
}))
"""

LIST_MODULES_WITHOUT_BYTECODE = """
import kerberos_sidecar.command, json, os, sys
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


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """
    What the project says of itself.
    """
    text = (ROOT / "sidecars/kerberos/pyproject.toml").read_text()
    project: dict[str, Any] = tomllib.loads(text)["project"]
    return project


@pytest.fixture(scope="module")
def kdc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kdc]:
    """
    A KDC on loopback, which containers share.
    """
    skip_without_kdc()
    with Kdc(tmp_path_factory.mktemp("kdc")) as kdc:
        kdc.add_principal("airflow", life="1h")
        yield kdc


class Pod:
    """
    The files of one container: keytab and krb5.conf to read, the ccache's folder to write.
    """

    def __init__(self, kdc: Kdc, folder: Path) -> None:
        self.config = kdc.client_config(folder / "krb5.conf")
        self.keytab = kdc.copy_keys(folder / "keytab" / "airflow.keytab", "airflow")
        self.keytab.chmod(0o444)
        self.ccache = folder / "ccache" / "krb5cc"
        self._folder = folder

    def container(self, image: Image, user: str = "50000:0", **settings: str) -> Container:
        environment = {
            "INTERVAL": "1h",
            "KRB5_CONFIG": str(self.config),
            "KERBEROS_KEYTAB_DIR": str(self.keytab.parent),
            "KERBEROS_CCACHE": str(self.ccache),
            "KERBEROS_HTTP_BIND": "127.0.0.1:0",
            **settings,
        }
        return Container(
            image,
            environment,
            self._folder / "home",
            [self.ccache.parent],
            [self.keytab.parent, self.config],
            user,
        )

    def is_valid(self) -> bool:
        return run_client(["klist", "-s"], self.config, self.ccache).returncode == 0


@pytest.fixture
def pod(kdc: Kdc, tmp_path: Path) -> Pod:
    return Pod(kdc, tmp_path)


def test_runs_the_daemon_as_the_charts_user_without_a_shell(image: Image) -> None:
    config = image.inspect()["Config"]

    assert "50000:0" == config["User"]
    assert ["kerberos-sidecar"] == config["Entrypoint"]
    assert not config.get("Cmd")
    assert not config.get("Healthcheck")
    assert config.get("StopSignal", "SIGTERM") in ("SIGTERM", "15")
    assert {"HOME=/tmp", "PYTHONUNBUFFERED=1"} <= set(config["Env"])


def test_is_small(image: Image) -> None:
    print(f"over its base: {image.over_base_bytes / 1e6:.1f} MB")

    assert image.over_base_bytes <= SIZE_OVER_BASE_BYTES


def test_holds_what_the_lock_names_and_nothing_else(contents: dict[str, Any]) -> None:
    assert_are_locked("kerberos", contents["distributions"])
    assert ["venv"] == contents["opt"]
    assert "src" not in contents["root"]


def test_has_libraries_but_no_tool_that_builds_installs_or_acquires(
    contents: dict[str, Any],
) -> None:
    installers = re.compile(r"pip|uv|wheel|easy_install|flit|cython")

    assert [] == [program for program in contents["programs"] if installers.match(program)]
    assert [] == contents["unwanted"]
    assert not contents["headers"]


def test_compiles_nothing_at_start(image: Image) -> None:
    """
    Python reads its encodings before any site package.
    """
    without: list[str] = json.loads(
        image.run("-I", "-c", LIST_MODULES_WITHOUT_BYTECODE, entrypoint="python")
    )

    assert [] == [name for name in without if not name.startswith("encodings")]


@pytest.mark.parametrize("user", ["50000:0", "1000710000:0"], ids=["chart", "arbitrary"])
def test_keeps_a_ticket_fresh_hardened(image: Image, pod: Pod, user: str) -> None:
    with pod.container(image, user, INTERVAL="1s") as container:
        container.wait_until_ready()
        assert pod.is_valid()
        published = pod.ccache.stat()
        assert (int(user.split(":")[0]), 0) == image.owner(pod.ccache)
        assert 0o640 == stat.S_IMODE(published.st_mode)

        wait_until(lambda: pod.ccache.stat().st_ino != published.st_ino, "a second ticket")

        assert 200 == container.get("/healthz").status
        assert container.metrics()['sidecar_ready{sidecar="kerberos"}'] == 1
        code = container.terminate().code

    assert 0 == code
    assert pod.is_valid()
    assert ["krb5cc"] == os.listdir(pod.ccache.parent)
    assert [] == container.complaints()


def test_one_shot_publishes_and_ends(image: Image, pod: Pod) -> None:
    with pod.container(image, KERBEROS_ONE_SHOT="true") as container:
        ended = container.wait_for_exit()

    assert 0 == ended.code
    assert pod.is_valid()
    assert [] == container.find_events("http_listening")
    assert [] == container.complaints()


def test_idles_in_little_memory(image: Image, pod: Pod) -> None:
    with pod.container(image) as container:
        container.wait_until_ready()

        resident = container.metrics()["process_resident_memory_bytes"]

    print(f"resident: {resident / 2**20:.1f} MiB")
    assert resident <= 40 * 2**20


def test_prints_its_version_and_help(image: Image, project: dict[str, Any]) -> None:
    assert project["version"] in image.run("--version")
    assert "check" in image.run("--help")
