"""
The settings of the kerberos sidecar, including the names that the chart's own container uses.

`INTERVAL` and `KRB5_CONFIG` have no prefix because existing deployments already set them. libkrb5
reads krb5.conf itself: see :mod:`kerberos_sidecar.krb5.overlay`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kerberos_sidecar.entries import Entry, ccache, ccache_mode, entries
from kerberos_sidecar.formats.pasted import holds_keytab, without_keytabs
from kerberos_sidecar.formats.principal import Principal, principal
from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.parsers import absolute_path, allows, boolean, duration
from sidecar_runtime.settings import (
    CommonSettings,
    changed_settings,
    inherited,
    load,
    setting,
)

PREFIX = "KERBEROS_"

# Settings for a single principal; each item of KERBEROS_PRINCIPALS has its own value instead.
FOR_ONE = ("KERBEROS_PRINCIPAL", "KERBEROS_CCACHE")

# The variables that the chart sets from `kerberos.*` in values.yaml (chart 1.22.0).
CHART_NAMES = {
    "AIRFLOW__KERBEROS__KEYTAB": "KERBEROS_KEYTAB",
    "AIRFLOW__KERBEROS__PRINCIPAL": "KERBEROS_PRINCIPAL",
    "AIRFLOW__KERBEROS__CCACHE": "KERBEROS_CCACHE",
    "AIRFLOW__KERBEROS__REINIT_FREQUENCY": "INTERVAL",
    "AIRFLOW__KERBEROS__FORWARDABLE": "KERBEROS_FORWARDABLE",
}


@allows("paths separated by colons")
def _config_paths(text: str) -> str:
    """
    Read the paths of krb5.conf, in the form that libkrb5 accepts.
    """
    if holds_keytab(text):
        raise ValueError("is a keytab, not paths separated by colons")
    return text


@dataclass(frozen=True, kw_only=True)
class Settings(CommonSettings):
    """
    The settings of the daemon.
    """

    interval_seconds: float = setting(
        "INTERVAL",
        duration(at_least=1, at_most=30 * 86400.0),
        default="1h",
        prefixed=False,
        text="Replace the ticket after this time, or at half of its life if that is sooner; up "
        "to a tenth earlier, at random, so that a fleet does not refresh at once.",
    )
    timeout_seconds: float = inherited(
        "timeout_seconds",
        default="60s",
        text="A cycle that takes longer is abandoned and counted as failed, and publishes nothing. "
        "The next cycle publishes a ticket that arrives late. Six silent KDCs take 21 s.",
    )
    http_bind: tuple[str, int] = inherited("http_bind", default=":9813")
    krb5_config: str | None = setting(
        "KRB5_CONFIG",
        _config_paths,
        prefixed=False,
        text="The site's krb5.conf. Unset: /etc/krb5.conf.",
    )
    keytab: str | None = setting(
        "KEYTAB", absolute_path, text="The keytab. Unset: the only one in KERBEROS_KEYTAB_DIR."
    )
    keytab_dir: str = setting(
        "KEYTAB_DIR",
        absolute_path,
        default="/etc/keytab",
        text="The folder to search for a keytab if none is named.",
    )
    principal: Principal | None = setting(
        "PRINCIPAL",
        principal,
        text="The principal to acquire a ticket for. Without a realm: the keytab's realm. Unset: "
        "the first principal in the keytab.",
    )
    ccache: str = setting(
        "CCACHE",
        ccache,
        default="/etc/keytab/ccache",
        text="The ccache to publish, on a volume that consumers mount.",
    )
    ccache_mode: int = setting(
        "CCACHE_MODE",
        ccache_mode,
        default="0640",
        text="The file mode of published ccaches. The default lets the shared group read them.",
    )
    principals: tuple[Mapping[str, Any], ...] | None = setting(
        "PRINCIPALS",
        entries,
        text="Several principals, each with its own ccache, instead of a single principal.",
    )
    ticket_lifetime_seconds: float | None = setting(
        "TICKET_LIFETIME",
        duration(at_least=1, at_most=365 * 86400.0),
        text="The life to request; the KDC may grant less. Unset: the value in krb5.conf, or 24h.",
    )
    renew_lifetime_seconds: float | None = setting(
        "RENEW_LIFETIME",
        duration(at_most=365 * 86400.0),
        text="Request tickets that consumers can renew for this long. 0: never renewable. Unset: "
        "the value in krb5.conf; a KDC that grants a shorter life may make the ticket renewable.",
    )
    lockout_window_seconds: float = setting(
        "LOCKOUT_WINDOW",
        duration(),
        default="30m",
        text="The time over which the realm's policy counts failures before it locks an account. "
        "A key that the KDC refuses is tried twice, then not for this long. 0: no limit.",
    )
    forwardable: bool = setting(
        "FORWARDABLE",
        boolean,
        default="true",
        text="Whether to request forwardable tickets, as Airflow does. Overrides krb5.conf.",
    )

    @property
    def entries(self) -> tuple[Entry, ...]:
        """
        The ccaches to keep fresh.
        """
        if self.principals is None:
            return (Entry(self.principal, self.keytab, self.ccache, self.ccache_mode),)
        return tuple(
            Entry(
                item["principal"],
                item.get("keytab", self.keytab),
                item["ccache"],
                item.get("mode", self.ccache_mode),
            )
            for item in self.principals
        )

    @property
    def source(self) -> str:
        """
        The keytabs, or the folders to search for them, as text.
        """
        keytabs = dict.fromkeys(entry.keytab or self.keytab_dir for entry in self.entries)
        return ", ".join(keytabs)

    @property
    def target(self) -> str:
        """
        The published ccaches, as text.
        """
        return ", ".join(entry.ccache for entry in self.entries)


def load_settings(environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """
    Return the settings and the unknown variables, as :func:`load` does.

    Raises:
        SettingsError: Settings are wrong; it lists all of them, under the names the user wrote.
    """
    given, chart = _given(environ)
    mixed = []
    if f"{PREFIX}PRINCIPALS" in given:
        mixed = [
            Problem(name, given[name], "cannot be combined with KERBEROS_PRINCIPALS")
            for name in FOR_ONE
            if name in given
        ]
    try:
        return load(Settings, PREFIX, given, check=lambda read: mixed + _check(read))
    except SettingsError as error:
        problems = [
            Problem(
                chart.get(problem.setting, problem.setting),
                problem.value and without_keytabs(problem.value),
                without_keytabs(problem.problem),
            )
            for problem in error.problems
        ]
        raise SettingsError(problems) from None


def changed(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return the settings that differ from the defaults, under the names the user wrote.
    """
    given, chart = _given(environ)
    found = changed_settings(Settings, PREFIX, given)
    return {chart.get(name, name): text for name, text in found.items()}


def _given(environ: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """
    Return the variables that are set, with the chart's under our names as well, and the chart's
    names that apply, by our names.
    """
    given = {name: value for name, value in environ.items() if value.strip()}
    # The chart always sets its names for one principal, so they do not conflict with a list.
    taken = given.keys() | (FOR_ONE if f"{PREFIX}PRINCIPALS" in given else ())
    chart = {
        ours: name for name, ours in CHART_NAMES.items() if name in given and ours not in taken
    }
    return given | {ours: given[name] for ours, name in chart.items()}, chart


def _check(settings: Settings) -> list[Problem]:
    name = "KERBEROS_CCACHE" if settings.principals is None else "KERBEROS_PRINCIPALS"
    paths = [entry.ccache for entry in settings.entries]
    places = [_place(path) for path in paths]
    twice = sorted({path for path in paths if places.count(_place(path)) > 1})
    problems = [Problem(name, path, "is the ccache of more than one principal") for path in twice]
    named = [entry.keytab for entry in settings.entries if entry.keytab]
    keytabs = {at for path in named for at in (_place(path), os.path.realpath(path))}
    for entry in settings.entries:
        if _place(entry.ccache) in keytabs:
            problems.append(Problem(name, entry.ccache, "is also the keytab"))
        elif os.path.ismount(entry.ccache):
            problems.append(Problem(name, entry.ccache, "is a mount point, not a file"))
    return problems


def _place(path: str) -> str:
    """
    Return the path that a rename to `path` would create or replace; a final link is not followed.

    Consumers may be able to write there, and a link to the keytab must not prevent the start.
    """
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
