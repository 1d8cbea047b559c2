"""
The site's krb5.conf: our relations before it, and what in it cannot work, by file and line.

libkrb5 names neither file nor line: a comment behind a KDC's name is "Invalid argument" to it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kerberos_sidecar.keytab import ENCTYPES, Keytab
from kerberos_sidecar.reasons import ENCTYPE_LIMITS, failure
from kerberos_sidecar.settings import Settings
from sidecar_runtime.errors import SidecarError

SITE_CONFIG = "/etc/krb5.conf"

# libkrb5's own deadline is a little before ours, so that it can report the cause. MIT knows
# request_timeout since 1.22.
REQUEST_SHARE = 0.9

_INCLUDED = re.compile(r"[A-Za-z0-9_-]+|[^.].*\.conf")


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
        text = f"{self.name} = {self.value}" if self.section else f"cannot parse {self.value}"
        return f"{self.path}, line {self.line}: {text}"


def site_paths(settings: Settings) -> list[str]:
    """
    Return absolute paths, because the child works in another folder.
    """
    return [os.path.abspath(path) for path in (settings.krb5_config or SITE_CONFIG).split(":")]


def overlay(settings: Settings, realm: str) -> str:
    """
    Return the relations that override the site's, also what it sets for the realm.
    """
    durations = {
        "request_timeout": max(1.0, settings.timeout_seconds * REQUEST_SHARE),
        "ticket_lifetime": settings.ticket_lifetime_seconds,
        "renew_lifetime": settings.renew_lifetime_seconds,
    }
    relations = {name: f"{int(value)}s" for name, value in durations.items() if value is not None}
    relations["forwardable"] = str(settings.forwardable).lower()
    if settings.renew_lifetime_seconds == 0:
        # Clears RENEWABLE_OK, the only default option: with it, the KDC issues a renewable ticket
        # if its own maximum is below the requested lifetime.
        relations["kdc_default_options"] = "0"
    lines = [f"  {name} = {value}" for name, value in relations.items()]
    return "\n".join(["[libdefaults]", *lines, f"  {realm} = {{", *lines, "  }", ""])


def missing(settings: Settings) -> SidecarError | None:
    """
    Return the error if KRB5_CONFIG names no readable file: libkrb5 skips missing ones. Without it,
    a site may rely on DNS alone.
    """
    named = settings.krb5_config
    if named is None or any(os.access(path, os.R_OK) for path in site_paths(settings)):
        return None
    return failure("config_missing", f"KRB5_CONFIG={named} names no readable file or folder")


def check_enctypes(settings: Settings, keytab: Keytab) -> None:
    """
    Raises:
        SidecarError: The keytab has no key that krb5.conf permits, or krb5.conf includes what
            cannot be read: no KDC needs to be asked.
    """
    for one in _relations(site_paths(settings)):
        if one.section == ("libdefaults",) and one.name in ENCTYPE_LIMITS:
            if keytab.enctypes.keys() <= ENCTYPES.keys() - _enctypes(one.value):
                held = ", ".join(keytab.enctypes.values())
                text = f"{keytab.path} has only {held} for {keytab.principal}"
                raise failure("keytab_enctypes_unusable", f"{text}, which is forbidden by {one}")
            return  # libkrb5 takes the first


def lines_about(settings: Settings, realm: str, *names: str) -> list[str]:
    """
    Return the lines that set one of these for a realm, and those that cannot be parsed.
    """
    return [
        str(one)
        for one in _relations(site_paths(settings))
        if not one.section
        or (one.name in names and (one.section[0] != "realms" or realm in one.section))
    ]


def _enctypes(text: str) -> set[int]:
    """
    Return what a list of encryption types and families permits, in case of doubt more.
    """
    found: set[int] = set()
    for word in text.lower().replace("arcfour", "rc4").replace(",", " ").split():
        name = word.lstrip("+-")
        meant = {number for number, full in ENCTYPES.items() if full.startswith(name)}
        if word.startswith("-"):
            found -= meant
        else:
            found |= meant or ENCTYPES.keys()  # an alias, or DEFAULT
    return found


def _relations(
    paths: Sequence[str], above: tuple[str, ...] = (), where: str = ""
) -> Iterator[Relation]:
    """
    Yield the relations of files, folders and what they include, in libkrb5's order.

    Args:
        above: The files that include these.
        where: The line that includes them.

    Raises:
        SidecarError: libkrb5 cannot read what is included, or would read it forever. It skips
            files that KRB5_CONFIG names, and that do not exist.
    """
    for path in paths:
        if path in above:
            raise failure("config_invalid", f"{where} includes {path}, which includes it")
        try:
            if os.path.isdir(path):
                names = filter(_INCLUDED.fullmatch, sorted(os.listdir(path)))
                files = [os.path.join(path, name) for name in names]
                yield from _relations(files, above, where or f"the folder {path}")
                continue
            with open(path, errors="replace") as file:
                lines = file.read(1 << 20).splitlines()
        except OSError as error:
            if where or os.path.isdir(path):
                text = f"{where or 'KRB5_CONFIG'} includes {path}: {error.strerror}"
                raise failure("config_invalid", text) from None
            continue
        yield from _parse((*above, path), lines)


def _parse(files: tuple[str, ...], lines: Sequence[str]) -> Iterator[Relation]:
    path, section = files[-1], list[str]()
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if found := re.fullmatch(r"include(?:dir)?\s+(/.*)", line.rstrip()):
            yield from _relations([found[1]], files, f"{path}, line {number}")
        elif found := re.fullmatch(r"\[([^\]]+)\]\*?", text):
            section = [found[1]]
        elif not text or text[0] in "#;" or (not section and text[0] != "["):
            pass  # what is before the first section is a comment to libkrb5
        elif text[0] == "}" and len(section) > 1:
            section.pop()
        elif found := re.fullmatch(r"([^\s=\[\]{}]+)\*?\s*=\s*{", text):
            section.append(found[1])
        elif found := re.fullmatch(r"([^\s=\[\]{}]+)\*?\s*=\s*(.*)", text):
            yield Relation(path, number, tuple(section), found[1], found[2].strip('"'))
        else:
            yield Relation(path, number, (), "", text)
