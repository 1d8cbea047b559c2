"""A bucket on a real server, and a publisher's command line."""

from pathlib import Path
from typing import Any

import pytest

from tests import Bodies
from tests.support.aws.fake_s3 import is_list
from tests.support.aws.gateway import Gateway
from tests.support.aws.servers import S3Server
from tests.support.http.faults import replace_body
from tests.support.s3_sync.publishing import (
    PREFIX,
    Publisher,
    check_every_release,
    read_release,
)
from tests.support.s3_sync.releases import make_release

A = {
    "a.py": b"print('a')\n",
    "sql/Q3 report (final).sql": b"select 1;\n" * 40,
    "empty": b"",
}
B = {"a.py": b"print('b')\n", "docs/\u00dcberblick.md": b"# \xc3\x9c\n"}
C = {"c.py": b""}
BROKEN = {"a.py": b"print('a'\n", "b.py": b"def :\n"}
# Listed as of the last century.
AGED = replace_body(lambda body: body.replace(b"Modified>20", b"Modified>19"))


class Place(Publisher):
    """A bucket on a real server, and a user who publishes to it."""

    def __init__(self, server: S3Server | Gateway, folder: Path) -> None:
        self.bucket = server.new_bucket("releases")
        super().__init__(server, self.bucket, folder / "home")
        self.s3: Any = server
        self.name = server.name
        self._has_versions = server.has_versions
        self._client = server.client()

    def bodies(self) -> Bodies:
        return {
            item["Key"]: self._client.get_object(Bucket=self.bucket, Key=item["Key"])[
                "Body"
            ].read()
            for item in self._client.list_objects_v2(Bucket=self.bucket).get(
                "Contents", []
            )
        }

    def current(self) -> Bodies:
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

    def begin_with(self, *releases: Bodies) -> None:
        """In another bucket, have only these old releases; the last one is current."""
        self.bucket = self.s3.new_bucket("releases")
        self.environment["AWS_BUCKET"] = self.bucket
        self.s3.heal()
        self.s3.inject(AGED, is_list)
        for release in map(make_release, releases):
            for name, body in release.objects().items():
                self._client.put_object(
                    Bucket=self.bucket, Key=PREFIX + name, Body=body
                )
