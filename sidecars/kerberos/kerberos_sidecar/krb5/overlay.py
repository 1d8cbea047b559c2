"""
What is laid over the site's krb5.conf, in memory.

What nobody sets stays as krb5.conf has it: in a list of files, as ``KRB5_CONFIG`` may be, the first
that has a relation wins.
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

# Where libkrb5 asks the KDCs itself, its own deadline comes a little before that of the cycle, so
# that it can say what was wrong. MIT knows it since 1.22.
REQUEST_SHARE = 0.9

# Where they are set they are meant for consumers, not for what acquires.
_IGNORED = ("KRB5CCNAME", "KRB5_KTNAME", "KRB5_CLIENT_KTNAME")


def lay_over(settings: Settings) -> None:
    """
    Make libkrb5 read our relations before the site's; once, before any thread.

    The file exists in memory only and as long as this process: nothing is left, and a read-only
    root without ``/tmp`` is fine.
    """
    fd = os.memfd_create("krb5.conf")
    os.write(fd, overlay(settings).encode())
    site = settings.krb5_config or SITE_CONFIG
    # Not into os.environ: the status page shows what was set.
    os.putenv("KRB5_CONFIG", f"/proc/self/fd/{fd}:{site}")
    leave_name_servers_soon(os.environ)
    for name in _IGNORED:
        os.environ.pop(name, None)


def leave_name_servers_soon(
    environ: MutableMapping[str, str], resolv: Path = Path("/etc/resolv.conf")
) -> None:
    """
    Make glibc ask the next name server when one is silent for 2 s; by default it gives it 5 s.

    What is in ``RES_OPTIONS`` wins over resolv.conf, so a pod that says how long keeps its own.
    """
    with suppress(OSError):
        if re.search(r"^options\b.*\btimeout:", resolv.read_text(), re.MULTILINE):
            return
    environ.setdefault("RES_OPTIONS", "timeout:2")


def overlay(settings: Settings) -> str:
    """
    Return the relations that win over the site's.
    """
    relations: dict[str, str] = {
        "forwardable": str(settings.forwardable).lower(),
        "request_timeout": f"{max(1, int(settings.timeout_seconds * REQUEST_SHARE))}s",
    }
    if settings.ticket_lifetime_seconds is not None:
        relations["ticket_lifetime"] = f"{int(settings.ticket_lifetime_seconds)}s"
    if settings.renew_lifetime_seconds is not None:
        relations["renew_lifetime"] = f"{int(settings.renew_lifetime_seconds)}s"
    if settings.renew_lifetime_seconds == 0:
        # Without RENEWABLE_OK, the only option that is on by default: with it the KDC gives a
        # renewable ticket where its own maximum is below the lifetime that was asked for.
        relations["kdc_default_options"] = "0"
    lines = [f"  {name} = {value}" for name, value in relations.items()]
    return "\n".join(["[libdefaults]", *lines, ""])


def check_config(settings: Settings) -> None:
    """
    Look whether the krb5.conf that was named is there.

    libkrb5 passes over files that are missing, and says later that it knows no KDC.

    Raises:
        SidecarError: None of the files can be read.
    """
    if settings.krb5_config is None:
        return  # a site may well live by DNS alone
    paths = settings.krb5_config.split(":")
    if not any(os.path.isfile(path) and os.access(path, os.R_OK) for path in paths):
        raise SidecarError(
            "config_missing",
            f"KRB5_CONFIG={settings.krb5_config} names no file that can be read",
            "Mount krb5.conf there (a ConfigMap, readable for this container).",
        )
