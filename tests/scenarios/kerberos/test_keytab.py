"""
Where the keytab is found, and what happens when it is rotated.
"""

import os
from pathlib import Path

from tests.support.kdc import run_client
from tests.support.site import Site
from tests.support.waiting import wait_until


def mounted_secret(site: Site, name: str) -> Path:
    """A folder as the kubelet makes it of a Secret: `airflow.keytab` -> `..data/airflow.keytab`."""
    folder = site.folder / "secret"
    folder.mkdir()
    (folder / "..2026_01").mkdir()
    os.replace(site.keytab, folder / "..2026_01" / name)
    (folder / "..data").symlink_to("..2026_01")
    (folder / name).symlink_to(f"..data/{name}")
    return folder


def test_a_rotated_secret_is_used_at_once(here: Site) -> None:
    """The kubelet makes a new folder and swaps the link `..data`; the file's own link stays."""
    folder = mounted_secret(here, "airflow.keytab")
    here.publish(KERBEROS_KEYTAB=str(folder / "airflow.keytab"))
    issued = here.kdc.requests()
    (folder / "..2026_02").mkdir()
    here.kdc.write_keytab(folder / "..2026_02" / "airflow.keytab", here.principal)
    (folder / "..data_tmp").symlink_to("..2026_02")

    os.replace(folder / "..data_tmp", folder / "..data")

    wait_until(lambda: here.kdc.requests() > issued, "a ticket with the new key", 10)


def test_the_only_keytab_of_the_folder_and_its_first_principal_are_taken(here: Site) -> None:
    """As in the published example, where the ccache lies beside the keytab."""
    folder = here.keytab.parent
    daemon = here.start(
        KERBEROS_KEYTAB=None,
        KERBEROS_PRINCIPAL=None,
        KERBEROS_CCACHE=str(folder / "ccache"),
        KERBEROS_KEYTAB_DIR=str(folder),
    )

    daemon.wait_until_ready()

    assert daemon.find_events("keytab_exposed")
    assert here.is_valid(folder / "ccache")
    listing = run_client(["klist"], here.config, folder / "ccache").stdout
    assert f"Default principal: {here.principal}" in listing
