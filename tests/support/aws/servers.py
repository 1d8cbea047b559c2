"""
Real S3 servers on loopback, each with its own peculiarities.

`MotoServer` is pure Python, runs in the test's process, accepts almost any key and
honors If-Match. `RcloneServer` is one Go process, checks signatures, and is strict
about keys. `MinioServer`, `VersityServer` and others are used in companies;
`scripts/test-programs` builds them.
"""

import base64
import itertools
import json
import logging
import os
import re
import shutil
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from moto.server import ThreadedMotoServer

from tests import ROOT, Texts
from tests.support.aws.fake_s3 import ACCESS_KEY, SECRET_KEY, environment_for
from tests.support.program import Program, listens, own_port, start_server

NAME_BYTES = 200
NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

REGION = "us-east-1"

_numbers = itertools.count(1)


class S3Server(Program, ABC):
    """
    An S3 server on one address.
    """

    name: str
    is_atomic = True
    """
    Whether it looks at a condition and writes in one step.
    """
    has_versions = True
    """
    Whether a bucket can keep all versions of an object.
    """
    takes_any_key = False
    """
    Whether it accepts keys that are impossible as paths on a disk.
    """
    refusals: frozenset[str] = frozenset()
    """
    The error codes for keys that its own disk cannot store.
    """
    access_key = ACCESS_KEY
    secret_key = SECRET_KEY
    region = REGION

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = own_port(host)
        self._client: Any = None

    def takes(self, key: str) -> bool:
        """
        Whether it accepts this key and lists it unchanged.
        """
        return True

    @property
    def endpoint(self) -> str:
        """
        The URL for AWS_ENDPOINT_URL.
        """
        return f"http://{self.host}:{self.port}"

    def environment(self) -> Texts:
        """
        Return the variables that make any AWS tool use only this server.
        """
        return environment_for(self.endpoint, self.region)

    def client(self) -> Any:
        """
        Return this server's shared boto3 S3 client; a new one costs 0.1 s of CPU.
        """
        if self._client is None:
            session = boto3.session.Session(
                aws_access_key_id=self.access_key,
                aws_secret_access_key=self.secret_key,
                region_name=self.region,
            )
            config = Config(
                s3={"addressing_style": "path"},
                # Do not use the machine's proxies. Reading them from the environment in
                # a thread would also race with pytest, which changes it for each test.
                proxies={},
                retries={"max_attempts": 1},
                connect_timeout=5,
                read_timeout=30,
            )
            self._client = session.client(
                "s3", endpoint_url=self.endpoint, config=config
            )
        return self._client

    def new_bucket(self, stem: str) -> str:
        """
        Create a bucket with a unique name, `<stem>-<number>`, and return the name.
        """
        bucket = f"{stem}-{next(_numbers)}"
        self.client().create_bucket(Bucket=bucket)
        return bucket


class MotoServer(S3Server):
    """
    Moto in this process, in threads; signatures are not checked.

    All servers of a process share one set of objects, which exists until the process
    ends: use `new_bucket`. Closes the connection after every answer.
    """

    name = "moto"
    is_atomic = False  # another thread may write between its look and its write
    takes_any_key = True

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__(host)
        self._server: ThreadedMotoServer | None = None

    def takes(self, key: str) -> bool:
        return "\n" not in key

    def start(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(self.host, self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        if self._server:
            self._server.stop()
            self._server = None


class ProgramServer(S3Server):
    """
    A server that is a separate program.

    Args:
        folder: The folder for its log, and for its objects if it stores them on disk.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    @abstractmethod
    def command(self) -> list[str]:
        """
        Return the program and its arguments.
        """

    def answers(self) -> bool:
        """
        Whether it answers; may raise OSError while it does not.
        """
        return listens(self.host, self.port)

    def start(self) -> None:
        self._process = start_server(
            self.command(),
            self.folder / f"{self.name}.log",
            self.answers,
            {"PATH": "/usr/bin:/bin", "HOME": str(self.folder)},
        )


class RcloneServer(ProgramServer):
    """
    `rclone serve s3` in memory, which checks signatures; `stop` deletes the objects.

    Merges NFD names into NFC, drops the slash of folder markers, returns ETags without
    quotes, ignores If-Match; refuses `//`, `..`, and a key that is both file and
    folder.
    """

    name = "rclone"

    def command(self) -> list[str]:
        return [
            str(Path(sys.executable).with_name("rclone")),
            "serve",
            "s3",
            f"--addr={self.host}:{self.port}",
            f"--auth-key={self.access_key},{self.secret_key}",
            "--config=",
            ":memory:",
        ]


class BuiltServer(ProgramServer):
    """
    A server that must be built first; otherwise the test is skipped.
    """

    variable: str

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        found = os.environ.get(self.variable) or shutil.which(self.name)
        if not found:
            pytest.skip(
                f'needs {self.name}: eval "$(scripts/test-programs)", which needs Go, Java or root'
            )
        self.program = found

    def answers(self) -> bool:
        """
        Whether it lists buckets: before it is ready, MinIO answers with 503.
        """
        try:
            self.client().list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True


class VersityServer(BuiltServer):
    """
    versitygw on a folder; each file is an object.
    """

    name = "versitygw"
    variable = "VERSITYGW_BIN"

    def takes(self, key: str) -> bool:
        """
        Return False for characters that XML 1.0 lacks, which it lists under other
        names, and for names near its disk's limit: its temporary names are longer, and
        overwrites corrupt objects.
        """
        is_long = any(len(part.encode()) > NAME_BYTES for part in key.split("/"))
        return not is_long and not NOT_IN_XML.search(key)

    def command(self) -> list[str]:
        objects = self.folder / "objects"
        facts = self.folder / "facts"
        versions = self.folder / "versions"
        for folder in (objects, facts, versions):
            folder.mkdir(exist_ok=True)
        return [
            self.program,
            f"--port={self.host}:{self.port}",
            f"--access={self.access_key}",
            f"--secret={self.secret_key}",
            "--quiet",
            "posix",
            f"--sidecar={facts}",
            f"--versioning-dir={versions}",
            str(objects),
        ]


class MinioServer(BuiltServer):
    """
    MinIO on a folder, with a key for encrypted objects.
    """

    name = "minio"
    variable = "MINIO_BIN"
    refusals = frozenset({"XMinioInvalidObjectName"})

    def command(self) -> list[str]:
        objects = self.folder / "objects"
        objects.mkdir(exist_ok=True)
        key = base64.b64encode(bytes(32)).decode()
        return [
            "env",
            f"MINIO_ROOT_USER={self.access_key}",
            f"MINIO_ROOT_PASSWORD={self.secret_key}",
            f"MINIO_KMS_SECRET_KEY=tests:{key}",
            "MINIO_UPDATE=off",
            f"HOME={self.folder}",
            self.program,
            "server",
            "--quiet",
            f"--address={self.host}:{self.port}",
            "--console-address=127.0.0.1:0",
            str(objects),
        ]


class SeaweedServer(BuiltServer):
    """
    SeaweedFS: master, volume, filer and S3 gateway in one process.
    """

    name = "seaweedfs"
    variable = "WEED_BIN"

    def answers(self) -> bool:
        """
        Whether it stores objects: it answers before its volumes have registered.
        """
        try:
            self.client().create_bucket(Bucket="ready")
            self.client().put_object(Bucket="ready", Key="ready", Body=b"ready")
        except (BotoCoreError, ClientError):
            return False
        return True

    def command(self) -> list[str]:
        identity = {
            "name": "tests",
            "credentials": [
                {"accessKey": self.access_key, "secretKey": self.secret_key}
            ],
            "actions": ["Admin", "Read", "List", "Write"],
        }
        config = self.folder / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        objects = self.folder / "objects"
        objects.mkdir(exist_ok=True)
        names = [
            f"{part}.port{kind}"
            for part in ("master", "volume", "filer")
            for kind in ("", ".grpc")
        ]
        return [
            self.program,
            "server",
            f"-dir={objects}",
            f"-ip={self.host}",
            f"-ip.bind={self.host}",
            *(f"-{name}={own_port()}" for name in names),
            "-volume.max=2000",  # each bucket takes some
            "-master.volumeSizeLimitMB=64",
            "-filer",
            "-s3",
            f"-s3.port={self.port}",
            f"-s3.port.grpc={own_port()}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.config={config}",
        ]


class S3ProxyServer(BuiltServer):
    """
    S3Proxy on a folder: it looks at a condition and then writes, not in one step.
    """

    name = "s3proxy"
    variable = "S3PROXY_JARS"
    is_atomic = False
    has_versions = False

    def command(self) -> list[str]:
        objects = self.folder / "objects"
        objects.mkdir(exist_ok=True)
        config = self.folder / "s3proxy.conf"
        config.write_text(
            f"s3proxy.endpoint={self.endpoint}\n"
            "s3proxy.authorization=aws-v2-or-v4\n"
            f"s3proxy.identity={self.access_key}\n"
            f"s3proxy.credential={self.secret_key}\n"
            "jclouds.provider=filesystem-nio2\n"
            f"jclouds.filesystem.basedir={objects}\n"
        )
        return [
            "java",
            "-Xmx500m",
            "-cp",
            f"{self.program}/*",
            "org.gaul.s3proxy.Main",
            "--properties",
            str(config),
        ]


class RgwServer(BuiltServer):
    """
    Ceph's S3 gateway, with a monitor and a disk, in a Debian of their own; needs root.
    """

    name = "rgw"
    variable = "CEPH_DEBIAN"

    def command(self) -> list[str]:
        program = [ROOT / "scripts/ceph-server", self.program, self.folder, own_port()]
        return [*map(str, program), str(self.port), self.access_key, self.secret_key]
