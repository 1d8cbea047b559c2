"""
The site's krb5.conf: our relations before it, and the lines that may be the cause of an
error, because libkrb5 names neither file nor line.
"""

import glob
import os
import re

from kerberos_sidecar.reasons import LINES, failure
from kerberos_sidecar.settings import Settings
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.volume.files import read_file

# libkrb5's own deadline is a little before ours, so that it can report the cause. MIT
# knows request_timeout since 1.22.
REQUEST_SHARE = 0.9

# How much of a file is searched, and how many lines are quoted.
SEARCH_BYTES = 1 << 20
MOST_LINES = 5


def site_paths(settings: Settings) -> list[str]:
    """
    Return absolute paths, because the child works in another folder.
    """
    return [
        os.path.abspath(path)
        for path in (settings.krb5_config or "/etc/krb5.conf").split(":")
        if path
    ]


def overlay(settings: Settings, realm: str) -> str:
    """
    Return the relations that override the site's, also what it sets for the realm.
    """
    relations = {
        "request_timeout": max(1.0, settings.timeout_seconds * REQUEST_SHARE),
        "ticket_lifetime": settings.ticket_lifetime_seconds,
        "renew_lifetime": settings.renew_lifetime_seconds,
    }
    lines = [
        f"  {name} = {int(seconds)}s"
        for name, seconds in relations.items()
        if seconds is not None
    ]
    lines += [
        f"  forwardable = {str(settings.forwardable).lower()}",
        "  ccache_type = 4",
    ]
    if settings.renew_lifetime_seconds == 0:
        # Clears RENEWABLE_OK, the only default option: with it, the KDC issues a
        # renewable ticket if its own maximum is below the requested lifetime.
        lines.append("  kdc_default_options = 0")
    return "\n".join(["[libdefaults]", *lines, f"  {realm} = {{", *lines, "  }", ""])


def wrong(settings: Settings) -> SidecarError | None:
    """
    Return the error if KRB5_CONFIG names no readable file, which libkrb5 skips. Without
    KRB5_CONFIG, a site may rely on DNS alone.
    """
    for path in site_paths(settings):
        # a pipe would keep libkrb5 waiting
        if os.access(path, os.R_OK) and (os.path.isfile(path) or os.path.isdir(path)):
            return None
    if settings.krb5_config is None:
        return None
    return failure(
        "config_missing",
        f"KRB5_CONFIG={settings.krb5_config} names no readable file or folder",
    )


def lines_about(settings: Settings, realm: str, reason: str) -> list[str]:
    """
    Return the lines that may be the cause of a reason, without those in the blocks of
    other realms. What the files include is not searched.
    """
    if reason not in LINES:
        return []
    pattern = re.compile(LINES[reason], re.IGNORECASE)
    lines: list[str] = []
    for path in site_paths(settings):
        for file in (path, *sorted(glob.glob(f"{glob.escape(path)}/*"))):
            lines += _search(file, realm, pattern)
    return lines[:MOST_LINES]


def _search(file: str, realm: str, pattern: re.Pattern[str]) -> list[str]:
    try:
        content = read_file(file, SEARCH_BYTES, follow=True)
    except OSError:  # a folder, or gone
        return []
    lines = []
    block = ""
    for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
        text = line.strip()
        if block in ("", realm) and pattern.fullmatch(text):
            lines.append(f"{file}, line {number}: {text}")
        if text.endswith("{"):
            block = text.partition("=")[0].strip()
        elif text.startswith(("}", "[")):
            block = ""
    return lines
