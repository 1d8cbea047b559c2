"""
The image of the kerberos sidecar works in a hardened container with a real KDC.
"""

import os
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


@pytest.mark.parametrize(
    "user", ["50000:0", "1000710000:0"], ids=["chart", "arbitrary"]
)
def test_keeps_a_ticket_fresh_in_a_hardened_container(
    image: Image, kdc: Kdc, tmp_path: Path, user: str
) -> None:
    config = kdc.client_config(tmp_path / "krb5.conf")
    keytab = kdc.copy_keys(tmp_path / "keytab" / "airflow.keytab", "airflow")
    keytab.chmod(0o444)
    ccache = tmp_path / "ccache" / "krb5cc"
    environment = {
        "INTERVAL": "1s",
        "KRB5_CONFIG": str(config),
        "KERBEROS_KEYTAB_DIR": str(keytab.parent),
        "KERBEROS_CCACHE": str(ccache),
        "KERBEROS_HTTP_BIND": "127.0.0.1:0",
    }

    def is_valid() -> bool:
        return run_client(["klist", "-s"], config, ccache).returncode == 0

    with Container(
        image,
        environment,
        tmp_path / "home",
        [ccache.parent],
        [keytab.parent, config],
        user,
    ) as container:
        container.wait_until_ready()
        assert is_valid()
        published = ccache.stat()
        assert (int(user.split(":")[0]), 0) == image.owner(ccache)

        wait_until(lambda: ccache.stat().st_ino != published.st_ino, "a second ticket")

        assert 200 == container.get("/healthz").status
        code = container.terminate().code

    assert 0 == code
    assert is_valid()
    assert ["krb5cc"] == os.listdir(ccache.parent)
    assert [] == container.complaints()
