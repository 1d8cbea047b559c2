"""
The part of GitHub's API that a GitHub App needs.
"""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.http.loopback import Answer, LoopbackServer, Request


class GitHubApi(LoopbackServer):
    """
    Issues installation tokens.
    """

    tokens = 0

    def good_answer(self, request: Request) -> Answer:
        self.tokens += 1
        ends_at = datetime.now(UTC) + timedelta(hours=1)
        return Answer(
            201,
            {},
            json.dumps(
                {"token": self.token, "expires_at": f"{ends_at:%Y-%m-%dT%H:%M:%SZ}"}
            ).encode(),
        )

    @property
    def token(self) -> str:
        """
        The newest token.
        """
        return f"ghs_{self.tokens:020}"


def write_key(path: Path) -> None:
    """
    Write the private key of an app.
    """
    path.write_bytes(
        rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
