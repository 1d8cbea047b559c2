"""
The embedded S3 server (moto), and what the demo has put into its bucket.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Self

import boto3
from botocore.config import Config
from moto.server import ThreadedMotoServer

ACCESS_KEY = "AKIADEMO000000000001"
SECRET_KEY = "only-the-embedded-server-knows-this"


class Bucket:
    """
    One bucket on a server on 127.0.0.1; `with Bucket(...) as bucket:` starts it.

    `stop` and `start` again are an outage: same port, same objects.
    """

    def __init__(self, name: str, prefix: str) -> None:
        self.name = name
        self.prefix = prefix
        self.files: dict[str, bytes] = {}
        """What is under the prefix, by relative path."""
        self._port = 0
        self._server: ThreadedMotoServer | None = None
        self._client: Any = None

    def __enter__(self) -> Self:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.start()
        self._client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(s3={"addressing_style": "path"}),
        )
        self._client.create_bucket(Bucket=self.name)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """
        The URL of the server.
        """
        return f"http://127.0.0.1:{self._port}"

    def daemon_environment(self, key_path: str, dags: Path, home: Path) -> dict[str, str]:
        """
        Return what a daemon gets: the four names of the published example, and what points it here.
        """
        published = {
            "AWS_BUCKET": self.name,
            "KEY_PATH": key_path,
            "DEST_PATH": str(dags),
            "INTERVAL": "1",
        }
        embedded = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "S3_SYNC_HTTP_BIND": "127.0.0.1:0",
            "HOME": str(home),
        }
        return published | embedded

    def start(self) -> None:
        """
        Begin to answer; the second time on the port of the first.
        """
        self._server = ThreadedMotoServer("127.0.0.1", self._port, verbose=False)
        self._server.start()
        self._port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        """
        Cease to answer: connections are refused afterwards.
        """
        if self._server is not None:
            self._server.stop()
            self._server = None

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
        Return an object, by its whole key.
        """
        body: bytes = self._client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return body

    def overwrite(self, key: str, content: bytes) -> None:
        """
        Replace an object, by its whole key, as no command of ours would.
        """
        self._client.put_object(Bucket=self.name, Key=key, Body=content)
