"""
The embedded S3 server (moto), and the files that the demo put into its bucket.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from tests.support.aws.servers import MotoServer


class Bucket:
    """
    A bucket on a server on 127.0.0.1; `with Bucket(...) as bucket:` starts the server.
    """

    def __init__(self, name: str, prefix: str) -> None:
        self.server = MotoServer()
        self.name = name
        self.prefix = prefix
        self.files: dict[str, bytes] = {}
        """The content under the prefix, by relative path."""

    def __enter__(self) -> Self:
        self.server.start()
        self._client = self.server.client()
        self._client.create_bucket(Bucket=self.name)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()

    def daemon_environment(self, key_path: str, dags: Path) -> dict[str, str]:
        """
        Return a daemon's settings: the four of the published example, and those for this server.
        """
        return {
            "AWS_BUCKET": self.name,
            "KEY_PATH": key_path,
            "DEST_PATH": str(dags),
            "INTERVAL": "1",
            **self.server.environment(),
            "S3_SYNC_HTTP_BIND": "127.0.0.1:0",
        }

    def put(self, path: str, content: bytes) -> None:
        """
        Upload one file.
        """
        self._client.put_object(Bucket=self.name, Key=f"{self.prefix}/{path}", Body=content)
        self.files[path] = content

    def put_folder(self, folder: Path) -> None:
        """
        Upload all files of a folder.
        """
        for file in sorted(folder.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                self.put(file.relative_to(folder).as_posix(), file.read_bytes())

    def delete(self, path: str) -> None:
        """
        Delete one file.
        """
        self._client.delete_object(Bucket=self.name, Key=f"{self.prefix}/{path}")
        del self.files[path]

    def read(self, key: str) -> bytes:
        """
        Return an object by its full key.
        """
        body: bytes = self._client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return body

    def overwrite(self, key: str, content: bytes) -> None:
        """
        Replace an object by its full key, which no s3-sync command would do.
        """
        self._client.put_object(Bucket=self.name, Key=key, Body=content)
