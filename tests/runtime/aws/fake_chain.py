"""
A program that replaces the interpreter that runs the credential chain.
"""

from typing import Any

from tests.support.aws.fake_child import FakeChild

FOUND = {
    "access_key": "AKID",
    "secret_key": "s3cr3t",
    "token": None,
    "expires_at": None,
    "method": "env",
}
CONFIG = {
    "region": "eu-central-1",
    "endpoint_url": None,
    "ca_bundle": None,
    "addressing_style": None,
    "use_fips": False,
    "use_dualstack": False,
}


class FakeChain(FakeChild):
    """A credential chain that gives the answer that the test sets."""

    def finds(self, **changes: Any) -> None:
        self.says({"credentials": FOUND | changes, **CONFIG})

    def fails(self) -> None:
        self.says({"error": {"reason": "credentials_unavailable", "message": "STS is silent"}})
