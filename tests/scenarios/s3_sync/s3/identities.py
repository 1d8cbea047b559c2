"""Scripted sources of credentials, and a search for leaked secrets."""

import itertools
from contextlib import suppress
from pathlib import Path

from tests.support.aws.fake_aws import SessionCredentials, is_action
from tests.support.aws.fake_s3 import FakeS3
from tests.support.daemon import Daemon, Settings

ASSUME = is_action("AssumeRoleWithWebIdentity")

NO_KEYS: Settings = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}

numbers = itertools.count(100)


def accept(s3: FakeS3, credentials: SessionCredentials) -> None:
    """Let S3 check signatures, and accept only these credentials."""
    s3.identities = {credentials.access_key: credentials.identity()}


def children(pid: int) -> list[int]:
    """Return the live children of all threads of a process."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # that thread has ended
            found += map(int, listed.read_text().split())
    return found


def assert_hides(daemon: Daemon, *secrets: str) -> None:
    """Assert that no log, HTTP answer or command line contains a secret."""
    shown = [daemon.log()]
    shown += [
        daemon.get(path).body
        for path in ("/", "/status", "/readyz", "/healthz", "/metrics")
    ]
    for pid in (daemon.pid, *children(daemon.pid)):
        with suppress(FileNotFoundError, ProcessLookupError):  # a child that has ended
            shown.append(
                Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            )
    for secret in secrets:
        assert not [text for text in shown if secret in text], secret
