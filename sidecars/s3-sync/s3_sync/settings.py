"""
The settings of s3-sync; the four names of the first published example have no prefix.

The `AWS_*` variables (region, credentials, endpoint, certificates) mean what they mean
to botocore: see :mod:`sidecar_runtime.aws.chain`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from s3_sync.names import is_revision
from s3_sync.s3.http import split_url
from sidecar_runtime.errors import Problem
from sidecar_runtime.gate.gate import GateSettings, check_gate
from sidecar_runtime.parsers import (
    YEAR_SECONDS,
    absolute_path,
    allows,
    boolean,
    choice,
    count,
    duration,
    mode,
    words,
)
from sidecar_runtime.settings import inherited, load, setting, without_password

PREFIX = "S3_SYNC_"

# What people write for KEY_PATH: without it, s3-sync would sync the whole bucket.
_WRONG = "AWS_KEY_PATH AWS_PREFIX KEYPATH KEY_PREFIX S3_KEY_PATH S3_PREFIX S3_SYNC_PREFIX key_path"
INSTEAD = dict.fromkeys(_WRONG.split(), "KEY_PATH")

# What earlier versions had; see `load`.
GONE = {
    "DRY_RUN": "no longer exists, and s3-sync writes: remove it to let it write; "
    "`s3-sync check` and `s3-sync diff` only read",
    "KEEP_REQUESTED_BYTES": "no longer exists: requested releases are limited by "
    "their number (S3_SYNC_KEEP_REQUESTED) and by the volume; remove it",
    "MAX_DELETE_HOLD": "no longer exists: a listing is held back for 15 minutes; "
    "remove it, or let S3_SYNC_MAX_DELETE decide which listings are",
    "MAX_KEYS": "no longer exists: memory is the limit; remove it, and let KEY_PATH "
    "or S3_SYNC_INCLUDE name the DAGs only",
}

_BUCKET = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]"
    r"|arn:aws[a-z-]*:s3:[a-z0-9-]+:\d{12}:accesspoint[:/][a-z0-9-]+"
)
# Aliases of what s3-sync does not support: multi-region access points, S3 Express,
# Object Lambda, Outposts.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_UNSUPPORTED = re.compile(r"\.mrap$|--(ol|op|x|xa)-s3$")


@allows("a bucket's name, or the ARN of an access point")
def bucket(text: str) -> str:
    """
    Read a bucket's name, or the ARN of an access point.
    """
    name = _no_url(text)
    if not _BUCKET.fullmatch(name) or _UNSUPPORTED.search(name):
        raise ValueError(
            "is neither the name of an ordinary bucket nor the ARN of an access point"
        )
    return name


@allows("a prefix such as airflow/dags")
def key_path(text: str) -> str:
    """
    Read a prefix; slashes at either end are trimmed, and it always names a whole
    folder.
    """
    return _no_url(text).strip("/")


def _no_url(text: str) -> str:
    if text.strip().lower().startswith("s3://"):
        raise ValueError(
            "is a URL; for s3://a-bucket/dags, write AWS_BUCKET=a-bucket KEY_PATH=dags"
        )
    return text.strip()


@allows("comma-separated globs, whose `*` also matches `/`")
def globs(text: str) -> tuple[str, ...]:
    """
    Read patterns of keys; refuse those that can match none.
    """
    for glob in words(text):
        if glob.endswith("/") or glob[0] in "/'\"":
            raise ValueError(
                f"contains {glob}, which can match no key: write it as in pkg/*, relative to "
                "KEY_PATH, without quotes"
            )
    return words(text)


@allows(
    "sha256- and 64 hexadecimal digits, as shown by `s3-sync releases --output json`"
)
def revision(text: str) -> str:
    """
    Read the id of a release.
    """
    if not is_revision(text.strip()):
        raise ValueError(
            "is not the id of a release (sha256- and 64 hexadecimal digits)"
        )
    return text.strip()


def key_file(text: str) -> str:
    """
    Read the path of a key file; refuse the key itself, a likely mistake.
    """
    if without_key(text) != text:
        raise ValueError("is a key; write the path of the file that contains it")
    return text


def without_key(text: str) -> str:
    """
    Return a key setting as it may be shown: ``***`` in place of a key.
    """
    return "***" if "-----BEGIN" in text or "\n" in text else text


@allows("a percentage from 0% to 100%")
def percent(text: str) -> int:
    """
    Read a percentage, with or without the percent sign.
    """
    match = re.fullmatch(r"(100|\d{1,2})\s*%?", text.strip())
    if match is None:
        raise ValueError("is not a percentage from 0% to 100%")
    return int(match[1])


@dataclass(frozen=True, kw_only=True)
class Settings(GateSettings):
    """
    The settings of the daemon.
    """

    bucket: str = setting(
        "AWS_BUCKET", bucket, prefixed=False, required=True, text="The bucket to read."
    )
    key_path: str = setting(
        "KEY_PATH",
        key_path,
        default="",
        prefixed=False,
        text="The folder in the bucket; `dags` does not match `dags-old/`. Empty: all of it.",
    )
    dest_path: str = setting(
        "DEST_PATH",
        absolute_path,
        prefixed=False,
        required=True,
        text="The local folder to keep equal to the source; created if missing.",
    )
    http_bind: tuple[str, int] = inherited("http_bind", default=":9811")
    layout: str = setting(
        "LAYOUT",
        choice("in-place", "snapshot"),
        default="in-place",
        text="`in-place`: files directly under DEST_PATH, each replaced atomically. "
        "`snapshot`: DEST_PATH/current is a link to one complete revision.",
    )
    source_kind: str = setting(
        "SOURCE",
        choice("listing", "release"),
        default="listing",
        text="`listing`: all objects under the prefix. `release`: what `s3-sync publish` made.",
    )
    revision: str | None = setting(
        "REVISION",
        revision,
        needs="SOURCE=release",
        text="Pin this release. Unset: follow the current one.",
    )
    trusted_keys: str | None = setting(
        "TRUSTED_KEYS",
        key_file,
        needs="SOURCE=release",
        show=without_key,
        allowed="a file, or a folder of files, with Ed25519 public keys in PEM format",
        text="Refuse a current release whose pointer is not signed with one of these keys, or "
        "is older than the newest that this volume has shown. Changed keys are reloaded.",
    )
    bucket_access: str = setting(
        "BUCKET_ACCESS",
        choice("private", "requester-pays", "public"),
        default="private",
        text="`requester-pays`: pay for requests. `public`: no signatures, no credentials.",
    )
    include: tuple[str, ...] = setting(
        "INCLUDE",
        globs,
        needs="SOURCE=listing",
        default="",
        text="Sync only keys that match; relative to KEY_PATH.",
    )
    exclude: tuple[str, ...] = setting(
        "EXCLUDE",
        globs,
        needs="SOURCE=listing",
        default="",
        text="Skip keys that match one of these, also included ones.",
    )
    delete: str = setting(
        "DELETE",
        choice("managed", "none"),
        needs="SOURCE=listing",
        default="managed",
        text="What to delete when keys disappear: what s3-sync published (`managed`), or nothing.",
    )
    max_delete_percent: int = setting(
        "MAX_DELETE",
        percent,
        needs="SOURCE=listing",
        default="80%",
        text="Hold back, for 15 minutes or until SIGHUP, a listing in which more than this "
        "share of the published files, and more than 20, have disappeared. 100%: never.",
    )
    verify: str = setting(
        "VERIFY",
        choice("auto", "strict"),
        needs="SOURCE=listing",
        default="auto",
        text="Whether an ETag that looks like an MD5 must match: on AWS (`auto`), or always.",
    )
    allow_empty: bool = setting(
        "ALLOW_EMPTY",
        boolean,
        needs="SOURCE=listing",
        default="false",
        text="Accept a prefix without files.",
    )
    settle_seconds: float = setting(
        "SETTLE",
        duration(),
        needs="SOURCE=listing",
        default="0",
        text="Apply a listing only once it has stayed the same for this long, also in a new pod.",
    )
    retain_count: int = setting(
        "RETAIN_COUNT",
        count,
        needs="LAYOUT=snapshot",
        default="2",
        text="How many older snapshots to keep for readers.",
    )
    retain_seconds: float = setting(
        "RETAIN_FOR",
        duration(at_most=YEAR_SECONDS),
        needs="LAYOUT=snapshot",
        default="10m",
        text="Keep each snapshot for at least this long after it was replaced.",
    )
    keep_requested: int = setting(
        "KEEP_REQUESTED",
        count,
        needs="SOURCE=release",
        default="20",
        text="How many requested older releases (DAG versions of Airflow 3) to keep. 0: none.",
    )
    file_mode: int = setting(
        "FILE_MODE",
        mode,
        needs="SOURCE=listing",
        default="0644",
        text="The mode of a listing's files, when they are new.",
    )
    fsync: bool = setting(
        "FSYNC",
        boolean,
        default="false",
        text="Flush each file to disk: for persistent volumes.",
    )

    @property
    def prefix(self) -> str:
        """
        The prefix of all keys, with a trailing slash; empty for the whole bucket.
        """
        return f"{self.key_path}/" if self.key_path else ""

    @property
    def is_snapshot(self) -> bool:
        return self.layout == "snapshot"

    @property
    def mode_on_disk(self) -> int:
        """
        The mode of new files. Hard links share their content: an edit in one snapshot
        would change all of them.
        """
        mode = 0o644 if self.source_kind == "release" else self.file_mode
        return mode & ~0o222 if self.is_snapshot else mode

    @property
    def answers(self) -> bool:
        """
        Whether consumers may request older releases.
        """
        return (
            self.source_kind == "release"
            and self.keep_requested > 0
            and not self.one_shot
        )

    @property
    def source(self) -> str:
        """
        The source as an ``s3://`` URL.
        """
        return f"s3://{self.bucket}/{self.prefix}"


def load_settings(
    environ: Mapping[str, str], *, may_be_idle: bool = False
) -> tuple[Settings, list[str]]:
    """
    Read the settings; return them and the unknown variables, as :func:`load` does.

    Raises:
        SettingsError: One or more settings are wrong; the error lists all of them.
    """
    return load(
        Settings,
        PREFIX,
        environ,
        instead=INSTEAD,
        gone=GONE,
        may_be_idle=may_be_idle,
        check=partial(_check, environ),
    )


def _check(environ: Mapping[str, str], settings: Settings) -> list[Problem]:
    """
    Return the settings that do not fit others.
    """
    needs_snapshots = (
        f"needs S3_SYNC_LAYOUT=snapshot; then set Airflow's dags_folder to "
        f"{settings.dest_path}/current"
    )
    rules: list[tuple[str, object, str]] = [
        ("DEST_PATH", os.path.isfile(settings.dest_path), "is a file, not a folder"),
        (
            "S3_SYNC_SOURCE",
            not settings.is_snapshot and settings.source_kind == "release",
            needs_snapshots,
        ),
        (
            "S3_SYNC_GATE",
            not settings.is_snapshot and settings.gate != "off",
            needs_snapshots,
        ),
    ]
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        is_wrong = (
            environ.get(name) and split_url(environ[name], "http", "https") is None
        )
        rules.append((name, is_wrong, "is not http(s)://HOST[:PORT]"))
    return [
        Problem(name, without_password(environ.get(name, "").strip()), why)
        for name, is_wrong, why in rules
        if is_wrong
    ] + check_gate(settings)
