"""
The source of credentials, in addition to git-sync's own flags: a keyword, or a secret.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from sidecar_runtime.parsers import allows

_SECRET = re.compile(r"[A-Za-z0-9/_+=.@!-]{1,512}")
_ARN = re.compile(r"arn:aws[a-z-]*:secretsmanager:([a-z0-9-]+):\d{12}:secret:[^:\s]{1,512}")
ALLOWED = "auto, codecommit, or secrets-manager:NAME (or its ARN)"


class Source(NamedTuple):
    """
    The source of the credentials for the git server.

    Args:
        secret: Its name or ARN, if the source is Secrets Manager.
    """

    kind: Literal["auto", "codecommit", "secrets-manager"]
    secret: str = ""


@allows(ALLOWED)
def source(text: str) -> Source:
    """
    Read ``auto``, ``codecommit`` or ``secrets-manager:NAME``.
    """
    kind, _, secret = text.strip().partition(":")
    match kind.lower(), secret:
        case "auto", "":
            return Source("auto")
        case "codecommit", "":
            return Source("codecommit")
        case "secrets-manager", name if _SECRET.fullmatch(name) or _ARN.fullmatch(name):
            return Source("secrets-manager", name)
    raise ValueError(f"is not {ALLOWED}")


@allows("a staging label such as AWSCURRENT or AWSPREVIOUS")
def stage(text: str) -> str:
    """
    Read a staging label of Secrets Manager.
    """
    if not re.fullmatch(r"\S{1,256}", text):
        raise ValueError("is not a staging label such as AWSCURRENT or AWSPREVIOUS")
    return text


def region_of_arn(secret: str) -> str | None:
    """
    Return the region in an ARN; None for a name.
    """
    match = _ARN.fullmatch(secret)
    return match and match[1]
