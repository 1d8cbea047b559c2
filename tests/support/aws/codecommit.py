"""
CodeCommit's check of a signature, implemented from AWS's documentation, not from our
signer.
"""

import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime

from tests.support.aws.fake_aws import SessionCredentials
from tests.support.aws.s3_refusals import signed


def judge(
    accepted: Callable[[], SessionCredentials], host: str, region: str
) -> Callable[[str, str, str], bool]:
    """
    Return a function that accepts or refuses a username and a password for a path.

    Args:
        accepted: Returns the valid credentials; all others are refused.
        host: The host as in the client's URL, without the port.
        region: The region of the repository.
    """

    def accepts(username: str, password: str, path: str) -> bool:
        credentials = accepted()
        if username != f"{credentials.access_key}%{credentials.token}":
            return False
        stamp = password[:15]
        signature = password[16:]
        signed_at = datetime.strptime(stamp, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        if (
            password[15:16] != "Z"
            or abs((datetime.now(UTC) - signed_at).total_seconds()) > 900
        ):
            return False
        repository = path.split("/info/refs")[0].removesuffix("/git-upload-pack")
        return hmac.compare_digest(
            _signature(credentials.secret_key, stamp, region, host, repository),
            signature,
        )

    return accepts


def _signature(secret_key: str, stamp: str, region: str, host: str, path: str) -> str:
    request = f"GIT\n{path}\n\nhost:{host}\n\nhost\n"
    scope = f"{stamp[:8]}/{region}/codecommit/aws4_request"
    digest = hashlib.sha256(request.encode()).hexdigest()
    return signed(secret_key, scope, f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}")
