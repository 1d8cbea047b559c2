"""
Read a git server's list of refs: pkt-lines of protocol version 2 and its predecessors.

Pure: bytes in, refs out.
Source: https://git-scm.com/docs/protocol-v2, https://git-scm.com/docs/gitprotocol-http and
https://git-scm.com/docs/gitprotocol-pack.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

Refs = Mapping[str, str]
"""Full name → commit; tags are peeled."""

# git resolves a short name in this order: https://git-scm.com/docs/gitrevisions.
_PLACES = ("{}", "refs/{}", "refs/tags/{}", "refs/heads/{}", "refs/remotes/{}")
_HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
PEELED = "^{}"
"""The suffix of a line with a peeled tag; that line follows the tag's own line."""
_FLUSH, _DELIMITER = "0000", "0001"


class NotGit(ValueError):
    """
    The answer is not the answer of a git server, or it was cut off.
    """


class ServerSays(Exception):
    """
    The server refused with an error of the protocol (``ERR …``).
    """


class Advert(NamedTuple):
    """
    The first answer of a server.

    Args:
        refs: All refs; `None` from a server of version 2, which sends them on request.
        object_format: The hash algorithm of its objects.
    """

    refs: Refs | None
    object_format: str = "sha1"


def choose(refs: Refs, name: str) -> str | None:
    """
    Return the commit of the ref that a name resolves to; None if no ref matches.
    """
    return next((refs[place] for place in places(name) if place in refs), None)


def places(name: str) -> list[str]:
    """
    Return the full names that a name may stand for, in git's order.
    """
    return [place.format(name) for place in _PLACES]


def ask_for(name: str, object_format: str) -> bytes:
    """
    Return the request of version 2 for the refs that a name may stand for.
    """
    head = ["command=ls-refs", "agent=git-sync-wrapper", f"object-format={object_format}"]
    arguments = ["peel", *(f"ref-prefix {place}" for place in places(name))]
    return "".join([*map(_line, head), _DELIMITER, *map(_line, arguments), _FLUSH]).encode()


def read_advert(body: bytes) -> Advert:
    """
    Read the answer to ``GET …/info/refs``.

    Raises:
        NotGit: It is not such an answer.
        ServerSays: The server refuses.
    """
    lines = list(_lines(body))
    if lines and lines[0].startswith("# service="):
        del lines[0]
    if not lines:
        raise NotGit("it contains no refs")
    if lines[0] != "version 2":
        return Advert(_read_old(lines))
    formats = [line.partition("=")[2] for line in lines if line.startswith("object-format=")]
    return Advert(None, *formats[:1])


def read_refs(body: bytes) -> Refs:
    """
    Read the answer to :func:`ask_for`.

    Raises:
        NotGit: It is not such an answer.
        ServerSays: The server refuses.
    """
    refs = {}
    for line in _lines(body):
        commit, _, rest = line.partition(" ")
        name, *attributes = rest.split(" ")
        if commit == "unborn":  # HEAD of a repository without commits
            continue
        peeled = [word.removeprefix("peeled:") for word in attributes if word[:7] == "peeled:"]
        refs[name] = _hash(peeled[0] if peeled else commit)
    return refs


def _read_old(lines: Iterable[str]) -> Refs:
    refs = {}
    for line in lines:
        if line == "version 1" or line.startswith("shallow "):
            continue
        commit, _, name = line.partition("\0")[0].partition(" ")
        refs[name.removesuffix(PEELED)] = _hash(commit)
    refs.pop("capabilities", None)  # the placeholder of a repository without commits
    return refs


def _hash(text: str) -> str:
    if not _HASH.fullmatch(text):
        raise NotGit("it is not a list of refs")
    return text


def _line(text: str) -> str:
    return f"{len(text.encode()) + 5:04x}{text}\n"


def _lines(body: bytes) -> Iterator[str]:
    """
    Yield the text of each pkt-line, without separators (flush, delimiter).
    """
    start = 0
    while start < len(body):
        try:
            size = int(body[start : start + 4], 16)
        except ValueError:
            raise NotGit("it does not consist of pkt-lines") from None
        end = start + max(size, 4)
        if end > len(body):
            raise NotGit("it was cut off")
        text = body[start + 4 : end].decode("utf-8", "surrogateescape").removesuffix("\n")
        if text.startswith("ERR "):
            raise ServerSays(text.removeprefix("ERR "))
        if size > 4:
            yield text
        start = end
    if not body.endswith(_FLUSH.encode()):  # JGit ends an error without one
        raise NotGit("it was cut off, or git did not send it")
