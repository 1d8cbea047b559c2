"""
Shared by tests of client and applier: credentials without a child process, and a
client.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from s3_sync.s3.client import S3Client
from s3_sync.s3.refusals import Operation
from sidecar_runtime.aws.credentials import AwsConfig, Chain, Credentials, Prepare
from sidecar_runtime.fence import Fence
from tests import Facts
from tests.support.aws.fake_s3 import ACCESS_KEY, SECRET_KEY, FakeS3

GIVEN = Credentials(ACCESS_KEY, SECRET_KEY)


class Given(Chain):
    """A chain with fixed credentials; `forget` moves on to the next ones."""

    def __init__(self, config: AwsConfig, *credentials: Credentials) -> None:
        super().__init__()
        self.config = config
        self._given = list(credentials or (GIVEN,))
        self.forgotten = 0

    def current(
        self, fence: Fence, prepare: Prepare = bool
    ) -> tuple[Credentials, AwsConfig]:
        """Return the first credentials that were not forgotten."""
        return self._given[0], self.config

    def forget(self) -> None:
        """Move on to the next credentials, if there are any."""
        self.forgotten += 1
        del self._given[: len(self._given) > 1]


def config(**changes: Any) -> AwsConfig:
    """
    Return botocore's configuration if only the region is configured, with changes.
    """
    unset = dict.fromkeys(("endpoint_url", "ca_bundle", "addressing_style"))
    facts: Facts = {
        "region": "us-east-1",
        "use_fips": False,
        "use_dualstack": False,
    }
    return AwsConfig(**facts | unset | changes)


def config_of(server: FakeS3, **changes: Any) -> AwsConfig:
    """Return the configuration with this server as the endpoint."""
    return config(
        **{"region": server.region, "endpoint_url": server.endpoint} | changes
    )


class Body:
    """Receives the body of an object, once for each attempt."""

    def __init__(self) -> None:
        self.attempts: list[bytearray] = []

    def restart(self) -> None:
        self.attempts.append(bytearray())

    def write(self, chunk: bytes) -> None:
        self.attempts[-1] += chunk

    @property
    def whole(self) -> bytes:
        return bytes(self.attempts[-1])


def play(
    server: FakeS3,
    scene: Callable[[S3Client], Awaitable[Any]],
    chain: Chain | None = None,
    counts: list[Operation] | None = None,
) -> Any:
    """Run a scene with a client in its first cycle."""

    async def run() -> Any:
        client = S3Client(
            server.bucket,
            "dags/",
            chain or Given(config_of(server)),
            (counts if counts is not None else []).append,
        )
        try:
            async with asyncio.timeout(60):
                await client.ensure_credentials(Fence())
                return await scene(client)
        finally:
            client.close()

    return asyncio.run(run())
