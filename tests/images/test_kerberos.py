"""
The image of the kerberos sidecar works in a hardened container with a real KDC.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images.container import Container, Image
from tests.support.kerberos.kdc import Kdc, run_client, skip_without_kdc
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def kdc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kdc]:
    """
    A KDC on loopback, which all containers use.
    """
    skip_without_kdc()
    with Kdc(tmp_path_factory.mktemp("kdc")) as kdc:
        kdc.add_principal("airflow", life="1h")
        yield kdc


class Pod:
    """
    The files of one container: keytab and krb5.conf, read-only, and a writable ccache folder.
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


@pytest.mark.parametrize("user", ["50000:0", "1000710000:0"], ids=["chart", "arbitrary"])
def test_keeps_a_ticket_fresh_in_a_hardened_container(image: Image, pod: Pod, user: str) -> None:
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
