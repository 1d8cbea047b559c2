"""
An in-memory overlay over the site's krb5.conf.

``KRB5_CONFIG`` may list several files, and the first file that contains a relation wins. Relations
that the overlay does not contain keep their value from krb5.conf.
"""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

from kerberos_sidecar.settings import Settings
from sidecar_runtime.errors import SidecarError

SITE_CONFIG = "/etc/krb5.conf"

# If libkrb5 asks the KDCs itself, its deadline is a little before the cycle's deadline, so that it
# can report the cause. MIT supports request_timeout since 1.22.
REQUEST_SHARE = 0.9

# If set, these are meant for consumers, not for this process.
_IGNORED = ("KRB5CCNAME", "KRB5_KTNAME", "KRB5_CLIENT_KTNAME")


def lay_over(settings: Settings) -> None:
    """
    Make libkrb5 read our relations before the site's. Call it once, before any thread starts.

    The file exists in memory, as long as this process: nothing is left behind, and a read-only root
    without ``/tmp`` is fine.
    """
    fd = os.memfd_create("krb5.conf")
    os.write(fd, overlay(settings).encode())
    site = settings.krb5_config or SITE_CONFIG
    # Not into os.environ: the status page shows the value that the user set.
    os.putenv("KRB5_CONFIG", f"/proc/self/fd/{fd}:{site}")
    leave_name_servers_soon(os.environ)
    for name in _IGNORED:
        os.environ.pop(name, None)


def leave_name_servers_soon(
    environ: MutableMapping[str, str], resolv: Path = Path("/etc/resolv.conf")
) -> None:
    """
    Make glibc ask the next name server after 2 s of silence instead of its default 5 s.

    ``RES_OPTIONS`` overrides resolv.conf, so it is not set if resolv.conf has a timeout already.
    """
    with suppress(OSError):
        if re.search(r"^options\b.*\btimeout:", resolv.read_text(), re.MULTILINE):
            return
    environ.setdefault("RES_OPTIONS", "timeout:2")


def overlay(settings: Settings) -> str:
    """
    Return the relations that override the site's, in the format of krb5.conf.
    """
    request_seconds = max(1, int(settings.timeout_seconds * REQUEST_SHARE))
    relations = {"request_timeout": f"{request_seconds}s"}
    if settings.renew_lifetime_seconds == 0:
        # Clears RENEWABLE_OK, the only default option: with it, the KDC issues a renewable ticket
        # if its own maximum is below the requested lifetime.
        relations["kdc_default_options"] = "0"
    lines = [f"  {name} = {value}" for name, value in relations.items()]
    return "\n".join(["[libdefaults]", *lines, ""])


def check_config(settings: Settings) -> None:
    """
    Check that a configured krb5.conf exists.

    libkrb5 skips missing files, and later reports that it knows no KDC.

    Raises:
        SidecarError: None of the files is readable.
    """
    if settings.krb5_config is None:
        return  # a site may rely on DNS alone
    paths = settings.krb5_config.split(":")
    if not any(os.access(path, os.R_OK) for path in paths):
        raise SidecarError(
            "config_missing",
            f"KRB5_CONFIG={settings.krb5_config} names no readable file or folder",
            "Mount krb5.conf there, from a ConfigMap that this container can read.",
        )
