"""
Username and password for CodeCommit: a signature of host and path serves as the password.

Only pure functions; the tests compare them with git-remote-codecommit and awscli's credential
helper, which define the username and the form of the signature. AWS documents signing at
https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar_runtime.aws.credentials import Credentials

# CodeCommit refuses signatures that are older than about 15 minutes.
VALID_SECONDS = 300.0

_HOST = re.compile(
    r"(?:vpce-[a-z0-9-]+\.)?git-codecommit(?:-fips)?\.([a-z0-9-]{1,32})(?:\.vpce)?"
    r"\.amazonaws\.com(?:\.cn)?"
)


def region_of(host: str) -> str | None:
    """
    Return the region of a CodeCommit host, VPC or FIPS endpoint; None for other hosts.

    Args:
        host: A host with or without a port.
    """
    match = _HOST.fullmatch(host.partition(":")[0].lower())
    return match and match[1]


def username(credentials: Credentials) -> str:
    """
    Return the username: the access key, followed by a percent sign and any session token.
    """
    return "%".join(filter(None, (credentials.access_key, credentials.token)))


def password(credentials: Credentials, host: str, path: str, region: str, now: float) -> str:
    """
    Return the password: the time and a signature, valid for this host and path only.

    Args:
        host: A host with or without a port; the port is not signed.
        path: The repository's path from git, with or without its leading slash.
        now: Unix time.
    """
    import hashlib  # noqa: PLC0415 - only for CodeCommit
    import hmac  # noqa: PLC0415

    moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now))  # the signed text has no Z
    scope = f"{moment[:8]}/{region}/codecommit/aws4_request"
    name = host.partition(":")[0]
    canonical = f"GIT\n/{path.lstrip('/')}\n\nhost:{name}\n\nhost\n"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{credentials.secret_key}".encode()
    for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"):
        key = hmac.digest(key, part.encode(), "sha256")
    return f"{moment}Z{key.hex()}"
