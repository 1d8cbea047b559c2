"""
The site's krb5.conf: our relations before it, and what in it cannot work, by file and line.

libkrb5 names neither file nor line: a comment behind a KDC's name is "Invalid argument" to it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kerberos_sidecar.keytab import Keytab
from kerberos_sidecar.principal import Principal
from kerberos_sidecar.reasons import failure
from kerberos_sidecar.settings import Settings

SITE_CONFIG = "/etc/krb5.conf"

# libkrb5's own deadline is a little before ours, so that it can report the cause. MIT knows
# request_timeout since 1.22.
REQUEST_SHARE = 0.9

_HOST = re.compile(r"(https://\S+|\[[0-9A-Fa-f:.%\w]+\]|[^\s:/#;\[\]{}]+)(:\d{1,5})?")
_DURATION = re.compile(r"-?\d+|-?(\d+\s*[dhms]\s*)+|\d+(:\d\d){1,2}|\d+-\d\d(:\d\d){1,2}")
_INCLUDED = re.compile(r"[A-Za-z0-9_-]+|[^.].*\.conf")

_FAMILIES = {
    "des": {1, 2, 3},
    "des3": {16},
    "aes": {17, 18, 19, 20},
    "rc4": {23},
    "camellia": {25, 26},
    "default": {16, 17, 18, 19, 20, 23, 25, 26},
}
_ENCTYPES = _FAMILIES | {
    "des3-cbc-sha1": {16},
    "aes128-cts": {17},
    "aes128-sha1": {17},
    "aes256-cts": {18},
    "aes256-sha1": {18},
    "aes128-sha2": {19},
    "aes256-sha2": {20},
    "arcfour-hmac": {23},
    "arcfour-hmac-md5": {23},
    "aes128-cts-hmac-sha1-96": {17},
    "aes256-cts-hmac-sha1-96": {18},
    "aes128-cts-hmac-sha256-128": {19},
    "aes256-cts-hmac-sha384-192": {20},
    "rc4-hmac": {23},
    "camellia128-cts": {25},
    "camellia128-cts-cmac": {25},
    "camellia256-cts": {26},
    "camellia256-cts-cmac": {26},
}


class Relation(NamedTuple):
    """
    One line of krb5.conf.

    Args:
        section: Its names, outermost first; empty if the line cannot be parsed.
    """

    path: str
    line: int
    section: tuple[str, ...]
    name: str
    value: str

    def __str__(self) -> str:
        text = f"{self.name} = {self.value}" if self.section else self.value
        return f"{self.path}, line {self.line}: {text}"


def site_paths(settings: Settings) -> list[str]:
    return (settings.krb5_config or SITE_CONFIG).split(":")


def overlay(settings: Settings, realm: str) -> str:
    """
    Return the relations that override the site's, also what it sets for the realm.
    """
    request_seconds = max(1, int(settings.timeout_seconds * REQUEST_SHARE))
    relations = {
        "forwardable": str(settings.forwardable).lower(),
        "request_timeout": f"{request_seconds}s",
    }
    if settings.ticket_lifetime_seconds is not None:
        relations["ticket_lifetime"] = f"{settings.ticket_lifetime_seconds:.0f}s"
    if settings.renew_lifetime_seconds is not None:
        relations["renew_lifetime"] = f"{settings.renew_lifetime_seconds:.0f}s"
    if settings.renew_lifetime_seconds == 0:
        # Clears RENEWABLE_OK, the only default option: with it, the KDC issues a renewable ticket
        # if its own maximum is below the requested lifetime.
        relations["kdc_default_options"] = "0"
    lines = [f"  {name} = {value}" for name, value in relations.items()]
    return "\n".join(["[libdefaults]", *lines, f"  {realm} = {{", *lines, "  }", ""])


def check_config(settings: Settings) -> None:
    """
    Check that a configured krb5.conf exists: libkrb5 skips missing files.

    Raises:
        SidecarError: None of the files is readable.
    """
    if settings.krb5_config is None:
        return  # a site may rely on DNS alone
    if not any(os.access(path, os.R_OK) for path in site_paths(settings)):
        text = f"KRB5_CONFIG={settings.krb5_config} names no readable file or folder"
        raise failure("config_missing", text)


def check_enctypes(settings: Settings, keytab: Keytab, principal: Principal) -> None:
    """
    Raises:
        SidecarError: The keytab has no key that krb5.conf permits: no KDC needs to be asked.
    """
    limits = ("permitted_enctypes", "default_tkt_enctypes")
    for limit in limits:
        found = [one for one in _relations(site_paths(settings)) if one.name == limit]
        permitted = _enctypes(found[0].value) if found else set()
        newest = keytab.newest_of(principal)
        if permitted and not any(key.enctype in permitted for key in newest):
            held = ", ".join(key.enctype_name for key in newest)
            text = f"{keytab.path} has only {held} for {principal}, and {found[0]} forbids that"
            raise failure("keytab_enctypes_unusable", text)


def find_fault(settings: Settings, realm: str) -> str:
    """
    Return the first line that cannot work for a realm, and why; empty if none is known.

    Meant for when libkrb5 has failed: what it accepts is never judged.
    """
    for one in _relations(site_paths(settings)):
        if why := _fault_of(one, realm):
            return f"{one} {why}"
    return ""


def _fault_of(one: Relation, realm: str) -> str:
    match one.section, one.name:
        case (), _:
            return "cannot be parsed"
        case ("realms", name), ("kdc" | "primary_kdc" | "master_kdc") if name == realm:
            found = _HOST.fullmatch(one.value)
            if found is None:
                return "is not a host, with or without a port; a comment needs its own line"
            if found[2] and not 0 < int(found[2][1:]) < 65536:
                return "has an impossible port"
        case ("libdefaults", *_), ("ticket_lifetime" | "renew_lifetime" | "clockskew"):
            return "" if _DURATION.fullmatch(one.value) else "is not a duration such as 10h"
        case ("libdefaults", *_), ("permitted_enctypes" | "default_tkt_enctypes"):
            return "" if _enctypes(one.value) else "names no known encryption type"
    return ""


def _enctypes(text: str) -> set[int]:
    found: set[int] = set()
    for word in re.split(r"[\s,]+", text.lower()):
        if word.startswith("-"):
            found -= _ENCTYPES.get(word[1:], set())
        else:
            found |= _ENCTYPES.get(word.removeprefix("+"), set())
    return found


def _relations(paths: Sequence[str]) -> Iterator[Relation]:
    """
    Yield the relations of files, folders and what they include, in libkrb5's order.
    """
    for path in paths:
        if os.path.isdir(path):
            names = filter(_INCLUDED.fullmatch, sorted(os.listdir(path)))
            yield from _relations([os.path.join(path, name) for name in names])
            continue
        try:
            with open(path, errors="replace") as file:
                lines = file.read(1 << 20).splitlines()
        except OSError:
            continue
        yield from _parse(path, lines)


def _parse(path: str, lines: Sequence[str]) -> Iterator[Relation]:
    section: list[str] = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text[0] in "#;" or (not section and text[0] != "["):
            if found := re.match(r"include(?:dir)?\s+(/.*)", text):
                yield from _relations([found[1]])
            continue  # what is before the first section is a comment to libkrb5
        if found := re.fullmatch(r"\[([^\]]+)\]\*?", text):
            section = [found[1]]
        elif re.match(r"(include|includedir|module)\s+/", text):
            yield from _relations([text.split(maxsplit=1)[1]])
        elif text.startswith("}") and len(section) > 1:
            section.pop()
        elif found := re.fullmatch(r"([^\s=\[\]{}]+)\*?\s*=\s*(.*)", text):
            if found[2] == "{":
                section.append(found[1])
            else:
                yield Relation(path, number, tuple(section), found[1], found[2].strip('"'))
        else:
            yield Relation(path, number, (), "", text)
