"""
CodeCommit: git's credential helper that signs with AWS credentials.

The password is a signature of host and path, valid for minutes, so it is made at each
login, by a program that gets credentials and region by its environment, from
:mod:`git_sync_wrapper.logins`.
The tests compare the signature with git-remote-codecommit and awscli's credential
helper, which define its form. AWS documents signing at
https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sys
import time


def sign_password(
    secret_key: str, host: str, path: str, region: str, now: float
) -> str:
    """
    Return the password: the time and a signature, valid for this host and path only.

    Args:
        host: A host with or without a port; the port is not signed.
        path: The repository's path from git, with or without its leading slash.
        now: Unix time.
    """
    # the signed text has no Z
    moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now))
    scope = f"{moment[:8]}/{region}/codecommit/aws4_request"
    canonical = f"GIT\n/{path.lstrip('/')}\n\nhost:{host.partition(':')[0]}\n\nhost\n"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{secret_key}".encode()
    for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"):
        key = hmac.digest(key, part.encode(), "sha256")
    return f"{moment}Z{key.hex()}"


def main() -> None:
    """
    Answer git: https://git-scm.com/docs/git-credential#IOFMT.
    """
    asked = dict(line.rstrip("\n").partition("=")[::2] for line in sys.stdin)
    if sys.argv[1:] != ["get"]:
        return
    signed = sign_password(
        os.environ["GSW_AWS_SECRET"],
        asked.get("host", ""),
        asked.get("path", ""),
        os.environ["GSW_AWS_REGION"],
        time.time(),
    )
    sys.stdout.write(f"username={os.environ['GSW_AWS_USER']}\npassword={signed}\n")


if __name__ == "__main__":
    main()
