"""A bucket on a real server, and a publisher's command line."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.aws.servers import S3Server
from tests.support.s3_sync.forked import ForkServer
from tests.support.s3_sync.publishing import (
    PREFIX,
    Publishing,
    check_every_release,
    read_release,
    write_files,
)

A = {
    "a.py": b"print('a')\n",
    "sql/Q3 report (final).sql": b"select 1;\n" * 40,
    "empty": b"",
}
B = {"a.py": b"print('b')\n", "docs/\u00dcberblick.md": b"# \xc3\x9c\n"}
C = {"c.py": b""}
BROKEN = {"a.py": b"print('a'\n", "b.py": b"def :\n"}


class Place(Publishing):
    """A bucket on a real server, and a user who publishes to it."""

    def __init__(self, server: S3Server, folder: Path, forks: ForkServer) -> None:
        self.bucket = server.new_bucket("releases")
        super().__init__(server, self.bucket, folder / "home", forks=forks)
        self.dags = folder / "dags"
        self.name = server.name
        self._has_versions = server.has_versions
        self._client = server.client()

    def publish(self, files: dict[str, bytes], *arguments: str) -> Any:
        """Publish a folder with these files; return the facts."""
        return self.succeed("publish", write_files(self.dags, files), *arguments)

    def bodies(self) -> dict[str, bytes]:
        found = self._client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return {
            item["Key"]: self._client.get_object(Bucket=self.bucket, Key=item["Key"])[
                "Body"
            ].read()
            for item in found
        }

    def current(self) -> dict[str, bytes]:
        """Verify every release; return the files of the current one."""
        bodies = self.bodies()
        check_every_release(bodies)
        return read_release(bodies)

    def version(self) -> None:
        """Keep all versions of each object; skip the test if the server cannot."""
        if not self._has_versions:
            pytest.skip(f"{self.name} has no versions")
        self._client.put_bucket_versioning(
            Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"}
        )

    def delete(self, name: str) -> None:
        self._client.delete_object(Bucket=self.bucket, Key=PREFIX + name)
