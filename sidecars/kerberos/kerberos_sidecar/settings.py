"""
The settings of the kerberos sidecar, including the names that the chart's own container
uses.

`INTERVAL` and `KRB5_CONFIG` have no prefix because existing deployments already set
them. libkrb5 reads krb5.conf itself: see :mod:`kerberos_sidecar.krb5_conf`.
"""

import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from kerberos_sidecar.formats import Principal, parse_principal
from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.parsers import (
    YEAR_SECONDS,
    absolute_path,
    allows,
    boolean,
    duration,
    mode,
    utf_8,
)
from sidecar_runtime.settings import (
    CommonSettings,
    changed_settings,
    inherited,
    load,
    setting,
)

PREFIX = "KERBEROS_"

# What earlier versions had; see `load`.
GONE = {
    "DRY_RUN": "no longer exists, and the sidecar writes: remove it to let it write; "
    "`kerberos-sidecar check` writes nothing",
}

# Settings for a single principal; each item of KERBEROS_PRINCIPALS has its own value
# instead.
FOR_ONE = ("KERBEROS_PRINCIPAL", "KERBEROS_CCACHE")

# The variables that the chart sets from `kerberos.*` in values.yaml (chart 1.22.0).
CHART_NAMES = {
    "AIRFLOW__KERBEROS__KEYTAB": "KERBEROS_KEYTAB",
    "AIRFLOW__KERBEROS__PRINCIPAL": "KERBEROS_PRINCIPAL",
    "AIRFLOW__KERBEROS__CCACHE": "KERBEROS_CCACHE",
    "AIRFLOW__KERBEROS__REINIT_FREQUENCY": "INTERVAL",
    "AIRFLOW__KERBEROS__FORWARDABLE": "KERBEROS_FORWARDABLE",
}


@allows("an absolute path, with or without FILE:")
def file_path(text: str) -> str:
    """
    Parse the path of a file, with or without ``FILE:``, as Airflow and kinit do.
    """
    kind = re.match(r"([A-Za-z]\w*):", text)
    if kind and kind[1].upper() != "FILE":
        raise ValueError(
            f"is of the kind {kind[1].upper()}; set the path of a file, which other "
            "containers can read"
        )
    return absolute_path(text[kind.end() :] if kind else text)


@allows('an octal mode of at most 0664, such as "0640"')
def ccache_mode(text: str) -> int:
    """
    Parse the mode of a ccache; refuse modes that let any user replace the ticket.
    """
    value = mode(text)
    if value & ~0o664:
        raise ValueError(
            "grants more than 0664, the most permissive mode that is allowed"
        )
    return value


@allows("a principal such as airflow@EXAMPLE.COM")
def principal(text: str) -> Principal:
    """
    Parse a principal; replace ``_HOST`` with this host's name, as Airflow does.
    """
    return parse_principal(
        text.replace("_HOST", socket.getfqdn()) if "_HOST" in text else text
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One ccache to keep fresh.

    Args:
        principal: ``None`` selects the first in the keytab.
        keytab: Its path; ``None`` selects the only keytab in KERBEROS_KEYTAB_DIR.
        mode: The mode of the published file.
    """

    principal: Principal | None
    ccache: str
    keytab: str | None
    mode: int


_PARSERS = {
    "principal": principal,
    "keytab": file_path,
    "ccache": file_path,
    "mode": ccache_mode,
}


@allows('JSON such as [{"principal": "a@B", "ccache": "/c", "keytab": "/k"}]')
def entries(text: str) -> tuple[Mapping[str, Any], ...]:
    """
    Parse the JSON list of principals; omitted keys default to the settings for one
    principal.
    """
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    is_list = isinstance(items, list) and items
    if not is_list or not all(isinstance(item, dict) for item in items):
        raise ValueError("is not a JSON list of objects")
    return tuple(_entry(number, item) for number, item in enumerate(items, 1))


def _entry(number: int, item: Mapping[str, object]) -> Mapping[str, Any]:
    if not {"principal", "ccache"} <= item.keys() <= _PARSERS.keys():
        known = ", ".join(_PARSERS)
        raise ValueError(
            f"item {number}: needs principal and ccache, and knows only {known}"
        )
    read = {}
    for key, value in item.items():
        try:
            if not isinstance(value, str):
                raise ValueError("is not a JSON string")
            read[key] = _PARSERS[key](utf_8(value))
        except ValueError as error:
            raise ValueError(f"item {number}: {key} {value!r} {error}") from None
    return read


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
        text="Replace the ticket after this time or at half of its life, up to a tenth earlier.",
    )
    timeout_seconds: float = inherited(
        "timeout_seconds",
        default="60s",
        text="The longest that a request for one ticket may take.",
    )
    http_bind: tuple[str, int] = inherited("http_bind", default=":9813")
    krb5_config: str | None = setting(
        "KRB5_CONFIG",
        str,
        prefixed=False,
        text="The site's krb5.conf. Unset: /etc/krb5.conf.",
    )
    keytab: str | None = setting(
        "KEYTAB",
        file_path,
        text="The keytab. Unset: the only one in KERBEROS_KEYTAB_DIR.",
    )
    keytab_dir: str = setting(
        "KEYTAB_DIR",
        absolute_path,
        default="/etc/keytab",
        text="Where to search for a keytab.",
    )
    principal: Principal | None = setting(
        "PRINCIPAL",
        principal,
        text="Without a realm: the keytab's. Unset: its first principal.",
    )
    ccache: str = setting(
        "CCACHE", file_path, default="/etc/keytab/ccache", text="The ccache to publish."
    )
    ccache_mode: int = setting(
        "CCACHE_MODE",
        ccache_mode,
        default="0640",
        text="The file mode of published ccaches.",
    )
    principals: tuple[Mapping[str, Any], ...] | None = setting(
        "PRINCIPALS",
        entries,
        text="Several principals, each with its own ccache, instead of one.",
    )
    ticket_lifetime_seconds: float | None = setting(
        "TICKET_LIFETIME",
        duration(at_least=1, at_most=YEAR_SECONDS),
        text="The life to request; the KDC may grant less. Unset: the value in krb5.conf.",
    )
    renew_lifetime_seconds: float | None = setting(
        "RENEW_LIFETIME",
        duration(at_most=YEAR_SECONDS),
        text="How long consumers can renew tickets. 0: never. Unset: the value in krb5.conf.",
    )
    lockout_window_seconds: float = setting(
        "LOCKOUT_WINDOW",
        duration(),
        default="30m",
        text="The time over which the realm's policy counts failures before it locks an account. A "
        "refused key is not tried again for this long, except on SIGHUP. 0: no limit.",
    )
    forwardable: bool = setting(
        "FORWARDABLE",
        boolean,
        default="true",
        text="Whether to request forwardable tickets.",
    )

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """
        The ccaches to keep fresh.
        """
        only = Entry(
            principal=self.principal,
            ccache=self.ccache,
            keytab=self.keytab,
            mode=self.ccache_mode,
        )
        if self.principals is None:
            return (only,)
        return tuple(replace(only, **item) for item in self.principals)

    @property
    def source(self) -> str:
        """
        The keytabs, or the folders to search for them, as text.
        """
        return ", ".join(
            dict.fromkeys(one.keytab or self.keytab_dir for one in self.entries)
        )

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
        SettingsError: Settings are wrong; it lists all of them, under the names the
            user wrote.
    """
    given, chart = _given(environ)
    text = "cannot be combined with KERBEROS_PRINCIPALS"
    mixed = [
        Problem(name, given[name], text)
        for name in FOR_ONE
        if name in given and "KERBEROS_PRINCIPALS" in given
    ]
    try:
        return load(
            Settings,
            PREFIX,
            given,
            gone=GONE,
            check=lambda read: mixed + _check(read),
        )
    except SettingsError as error:
        named = [
            one._replace(setting=chart.get(one.setting, one.setting))
            for one in error.problems
        ]
        raise SettingsError(named) from None


def changed(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return the settings that differ from the defaults, under the names the user wrote.
    """
    given, chart = _given(environ)
    found = changed_settings(Settings, PREFIX, given).items()
    return {chart.get(name, name): text for name, text in found}


def _given(environ: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """
    Return the variables that are set, with the chart's under our names as well, and the
    chart's names that apply, by our names.
    """
    given = {name: value for name, value in environ.items() if value.strip()}
    # The chart always sets its names for one principal, so they do not conflict with a
    # list.
    taken = given.keys() | (FOR_ONE if "KERBEROS_PRINCIPALS" in given else ())
    chart = {
        ours: name
        for name, ours in CHART_NAMES.items()
        if name in given and ours not in taken
    }
    return given | {ours: given[name] for ours, name in chart.items()}, chart


def _check(settings: Settings) -> list[Problem]:
    places = [_place(entry.ccache) for entry in settings.entries]
    text = "is the ccache of more than one principal"
    twice = [one for one in dict.fromkeys(places) if places.count(one) > 1]
    return [Problem("KERBEROS_PRINCIPALS", place, text) for place in twice]


def _place(path: str) -> str:
    """
    Return the path that a rename to `path` would create or replace; a final link is not
    followed.

    Consumers may be able to write there, and a link to the keytab must not prevent the
    start.
    """
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
