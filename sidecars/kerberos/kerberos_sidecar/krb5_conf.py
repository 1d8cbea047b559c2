"""
The site's krb5.conf: our relations before it, and what in it cannot work, by file and
line.

libkrb5 names neither file nor line: a comment behind a KDC's name is "Invalid argument"
to it.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kerberos_sidecar.reasons import LINES, failure
from kerberos_sidecar.settings import Settings
from sidecar_runtime.errors import SidecarError

SITE_CONFIG = "/etc/krb5.conf"

# libkrb5's own deadline is a little before ours, so that it can report the cause. MIT
# knows request_timeout since 1.22.
REQUEST_SHARE = 0.9

_INCLUDED = re.compile(r"[A-Za-z0-9_-]+|[^.].*\.conf")


class Relation(NamedTuple):
    """
    One line of krb5.conf.

    Args:
        name: Empty if the line cannot be parsed.
        section: Its names, outermost first.
    """

    path: str
    line: int
    section: tuple[str, ...]
    name: str
    value: str

    def __str__(self) -> str:
        text = (
            f"{self.name} = {self.value}" if self.name else f"cannot parse {self.value}"
        )
        return f"{self.path}, line {self.line}: {text}"


def site_paths(settings: Settings) -> list[str]:
    """
    Return absolute paths, because the child works in another folder.
    """
    paths = (settings.krb5_config or SITE_CONFIG).split(":")
    return [os.path.abspath(path) for path in paths if path]


def overlay(settings: Settings, realm: str) -> str:
    """
    Return the relations that override the site's, also what it sets for the realm.
    """
    durations = {
        "request_timeout": max(1.0, settings.timeout_seconds * REQUEST_SHARE),
        "ticket_lifetime": settings.ticket_lifetime_seconds,
        "renew_lifetime": settings.renew_lifetime_seconds,
    }
    relations = {
        name: f"{int(value)}s" for name, value in durations.items() if value is not None
    }
    relations |= {"forwardable": str(settings.forwardable).lower(), "ccache_type": "4"}
    if settings.renew_lifetime_seconds == 0:
        # Clears RENEWABLE_OK, the only default option: with it, the KDC issues a
        # renewable ticket if its own maximum is below the requested lifetime.
        relations["kdc_default_options"] = "0"
    lines = [f"  {name} = {value}" for name, value in relations.items()]
    return "\n".join(["[libdefaults]", *lines, f"  {realm} = {{", *lines, "  }", ""])


def wrong(settings: Settings) -> SidecarError | None:
    """
    Return the error if KRB5_CONFIG names no readable file, which libkrb5 skips, or if
    one includes what cannot be read. Without KRB5_CONFIG, a site may rely on DNS alone.
    """
    named, paths = settings.krb5_config, site_paths(settings)
    if named and not any(os.access(path, os.R_OK) for path in paths):
        return failure(
            "config_missing", f"KRB5_CONFIG={named} names no readable file or folder"
        )
    try:
        deque(_relations(paths), 0)
    except SidecarError as error:
        return error
    return None


def lines_about(settings: Settings, realm: str, code: int) -> list[str]:
    """
    Return the lines of which one is the cause of a code of libkrb5, as far as they are
    for a realm.
    """
    names, fine = LINES.get(code, ((), ""))
    places = [(), ("libdefaults",), ("libdefaults", realm), ("realms", realm)]
    lines = [
        str(one)
        for one in _relations(site_paths(settings))
        if one.name in names
        and one.section in places
        and not re.fullmatch(fine, one.value.lower())
    ]
    return lines[:1] if "" in names else lines  # its parser stops at the first


def _relations(
    paths: Sequence[str], above: tuple[str, ...] = (), where: str = ""
) -> Iterator[Relation]:
    """
    Yield the relations of files, folders and what they include, in libkrb5's order.

    Args:
        above: The files that include these.
        where: The line that includes them.

    Raises:
        SidecarError: libkrb5 cannot read what is included, or would read it forever. It
            skips files that KRB5_CONFIG names, and that do not exist.
    """
    for path in paths:
        if path in above:
            raise failure(
                "config_invalid", f"{where} includes {path}, which includes it"
            )
        try:
            if os.path.isdir(path):
                names = filter(_INCLUDED.fullmatch, sorted(os.listdir(path)))
                files = [os.path.join(path, name) for name in names]
                yield from _relations(files, above, where or f"the folder {path}")
                continue
            with open(path, errors="replace") as file:
                lines = file.read(1 << 20).splitlines()
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            if where or os.path.isdir(path):
                said = error.strerror if isinstance(error, OSError) else error
                text = f"{where or 'KRB5_CONFIG'} includes {path}: {said}"
                raise failure("config_invalid", text) from None
            continue
        yield from _parse((*above, path), lines)


def _parse(files: tuple[str, ...], lines: Sequence[str]) -> Iterator[Relation]:
    """
    Yield the relations of a file by the rules of libkrb5's parser, and the lines that
    it refuses.
    """
    path, section, opened = files[-1], list[str](), ""
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if found := re.fullmatch(r"include(?:dir)?\s+(.*\S)\s*", line):
            yield from _relations(
                [os.path.join("/", found[1])], files, f"{path}, line {number}"
            )
        elif opened:  # a name without a value: only a brace may follow
            if not text.startswith("{"):
                yield Relation(path, number - 1, (), "", opened)
            opened = ""
        elif (
            not text
            or text[0] in "#;"
            or not (section or re.match(r"\[|module\s", line))
        ):
            # what is before the first section is a comment to libkrb5, or a program to
            # load
            pass
        elif len(section) < 2 and (found := re.fullmatch(r"\[([^]]+)\]\*?", text)):
            section = [found[1]]
        elif text[0] == "}" and len(section) > 1:
            section.pop()
        elif text[0] not in "[}" and (
            found := re.fullmatch(r"([^\s=]+?)\*?\s*=\s*(.*)", text)
        ):
            if found[2] in ("", "{"):
                section.append(found[1])
                opened = "" if found[2] else text
            else:
                yield Relation(
                    path, number, tuple(section), found[1], found[2].strip('"')
                )
        else:
            yield Relation(path, number, (), "", text)
