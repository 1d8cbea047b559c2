"""
The settings of s3-sync; the four names of the first published example have no prefix.

The `AWS_*` variables (region, credentials, endpoint, certificates) mean what they mean to
botocore: see :mod:`sidecar_runtime.aws.chain`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s3_sync.digest import is_revision
from sidecar_runtime import proxies
from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.gate.gate import GateSettings, check_gate
from sidecar_runtime.parsers import (
    YEAR_SECONDS,
    absolute_path,
    allows,
    boolean,
    choice,
    count,
    duration,
    http_url,
    mode,
    words,
)
from sidecar_runtime.settings import inherited, load, setting, without_password

if TYPE_CHECKING:
    from s3_sync.signature import Keys

PREFIX = "S3_SYNC_"

# What people write for KEY_PATH: without it, s3-sync would sync the whole bucket.
_WRONG = "AWS_KEY_PATH AWS_PREFIX KEYPATH KEY_PREFIX S3_KEY_PATH S3_PREFIX S3_SYNC_PREFIX key_path"
INSTEAD = dict.fromkeys(_WRONG.split(), "KEY_PATH")

_BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
# Aliases of what s3-sync does not support: multi-region access points, S3 Express, Object Lambda,
# Outposts. https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_UNSUPPORTED = re.compile(r"\.mrap$|--(ol|op|x|xa)-s3$")
_ACCESS_POINT = re.compile(r"arn:(aws[a-z-]*):s3:([a-z0-9-]+):(\d{12}):accesspoint[:/]([a-z0-9-]+)")


@allows("a bucket's name, or the ARN of an access point")
def bucket(text: str) -> str:
    """
    Read a bucket's name, or the ARN of an access point.
    """
    name = text.strip()
    if name.lower().startswith("s3://"):
        raise ValueError(f"is a URL; write {_settings_of(without_password(name))}")
    known = _ACCESS_POINT if name.startswith("arn:") else _BUCKET_NAME
    if not known.fullmatch(name) or _UNSUPPORTED.search(name):
        raise ValueError("is neither the name of an ordinary bucket nor the ARN of an access point")
    return name


@allows("a prefix such as airflow/dags")
def key_path(text: str) -> str:
    """
    Read a prefix; slashes at either end are trimmed, and it always names a whole folder.
    """
    path = text.strip()
    if path.lower().startswith("s3://"):
        raise ValueError(f"is a URL; write {_settings_of(without_password(path))}")
    return path.strip("/")


def _settings_of(url: str) -> str:
    bucket, _, key = url[len("s3://") :].partition("/")
    path = key.strip("/")
    return f"AWS_BUCKET={bucket}{path and f' and KEY_PATH={path}'}"


@allows("an absolute path")
def target(text: str) -> str:
    """
    Read the path of the target; refuse a file.
    """
    path = absolute_path(text)
    if os.path.exists(path) and not os.path.isdir(path):
        raise ValueError("is a file, not a folder")
    return path


@allows("sha256- and 64 hexadecimal digits, as shown by `s3-sync releases --output json`")
def revision(text: str) -> str:
    """
    Read the id of a release.
    """
    if not is_revision(text.strip()):
        raise ValueError("is not the id of a release (sha256- and 64 hexadecimal digits)")
    return text.strip()


def key_file(text: str) -> str:
    """
    Read the path of a key file; refuse the key itself, a likely mistake.
    """
    if is_key(text):
        raise ValueError("is a key; write the path of the file that contains it")
    return text


def is_key(text: str) -> bool:
    return "-----BEGIN" in text or "\n" in text


def without_key(text: str) -> str:
    """
    Return a key setting as it may be shown: ``***`` in place of a key.
    """
    return "***" if is_key(text) else text


@allows("a percentage from 0% to 100%")
def percent(text: str) -> int:
    """
    Read a percentage, with or without the percent sign.
    """
    match = re.fullmatch(r"(\d{1,3})\s*%?", text.strip())
    if not match or int(match[1]) > 100:
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
        text="The folder in the bucket; `dags` does not match `dags-old/`. Empty or `/`: the "
        "whole bucket.",
    )
    dest_path: str = setting(
        "DEST_PATH",
        target,
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
        text="`listing`: all objects under the prefix. `release`: the current release there, "
        "published with `s3-sync publish`.",
    )
    revision: str | None = setting(
        "REVISION",
        revision,
        text="Pin this release; requires S3_SYNC_SOURCE=release. Unset: follow the current one.",
    )
    trusted_keys: str | None = setting(
        "TRUSTED_KEYS",
        key_file,
        show=without_key,
        allowed="a file, or a folder of files, with Ed25519 public keys in PEM format",
        text="Refuse a current release whose pointer is not signed with one of these keys, or "
        "is older than the newest that this volume has shown. Changed keys are reloaded. "
        "Unset: no signatures.",
    )
    bucket_access: str = setting(
        "BUCKET_ACCESS",
        choice("private", "requester-pays", "public"),
        default="private",
        text="`requester-pays`: agree to pay for requests. `public`: do not sign requests, nor "
        "look for credentials.",
    )
    include: tuple[str, ...] = setting(
        "INCLUDE",
        words,
        default="",
        allowed="comma-separated globs",
        text="Sync only keys that match one of these, relative to KEY_PATH. `*` also matches `/`.",
    )
    exclude: tuple[str, ...] = setting(
        "EXCLUDE",
        words,
        default="",
        allowed="comma-separated globs",
        text="Skip keys that match one of these; overrides S3_SYNC_INCLUDE.",
    )
    delete: str = setting(
        "DELETE",
        choice("managed", "none", "all"),
        default="managed",
        text="What to delete when keys disappear. `managed`: files that s3-sync published. "
        "`none`: nothing. `all`: every file that is not in the bucket, except "
        "`__pycache__`.",
    )
    max_delete_percent: int = setting(
        "MAX_DELETE",
        percent,
        default="80%",
        text="Hold back, for 15 minutes or until SIGHUP, a listing in which more than this "
        "share of the published files, and more than 20, have disappeared at once. 100%: "
        "never.",
    )
    verify: str = setting(
        "VERIFY",
        choice("auto", "strict", "lenient"),
        default="auto",
        text="Whether an ETag that looks like an MD5 must match the content. `auto`: on AWS. "
        "`strict`: always. `lenient`: never. Checksums are always verified.",
    )
    allow_empty: bool = setting(
        "ALLOW_EMPTY",
        boolean,
        default="false",
        text="Accept a prefix without files instead of failing with `source_empty`.",
    )
    settle_seconds: float = setting(
        "SETTLE",
        duration(),
        default="0",
        text="Apply a changed listing only after it has stayed the same for this long, so that "
        "half an upload is not published. A new pod waits as well.",
    )
    retain_count: int = setting(
        "RETAIN_COUNT",
        count,
        default="2",
        text="How many older snapshots to keep for readers that still have them open.",
    )
    retain_seconds: float = setting(
        "RETAIN_FOR",
        duration(at_most=YEAR_SECONDS),
        default="10m",
        text="Keep each snapshot for at least this long after it was replaced.",
    )
    keep_requested: int = setting(
        "KEEP_REQUESTED",
        count,
        default="20",
        text="How many older releases that pods have requested (DAG versions of Airflow 3) to "
        "keep in addition. 0: serve no requests.",
    )
    file_mode: int = setting(
        "FILE_MODE",
        mode,
        default="0644",
        text="The mode of new files of a listing; snapshots remove the write bits. A file of a "
        "release is 0755 if it is executable, otherwise 0644.",
    )
    fsync: bool = setting(
        "FSYNC",
        boolean,
        default="false",
        text="Flush each file to disk before it is published: for persistent volumes.",
    )

    @property
    def prefix(self) -> str:
        """
        The prefix of all keys, with a trailing slash; empty for the whole bucket.
        """
        return f"{self.key_path}/" if self.key_path else ""

    @property
    def answers(self) -> bool:
        """
        Whether consumers may request older releases.
        """
        is_possible = self.source_kind == "release" and self.layout == "snapshot"
        return is_possible and bool(self.keep_requested) and not self.one_shot

    @property
    def source(self) -> str:
        """
        The source as an ``s3://`` URL.
        """
        return f"s3://{self.bucket}/{self.prefix}"


def load_settings(environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """
    Read the settings; return them and the unknown variables, as :func:`load` does.

    Raises:
        SettingsError: One or more settings are wrong; the error lists all of them.
    """

    def check(settings: Settings) -> list[Problem]:
        return [
            *_check_layout(settings),
            *_check_source(settings),
            *_check_globs(settings),
            *check_gate(settings, PREFIX),
            *_check_endpoints(environ),
        ]

    return load(Settings, PREFIX, environ, instead=INSTEAD, check=check)


def _check_endpoints(environ: Mapping[str, str]) -> list[Problem]:
    """
    Return the endpoints in the environment that are no URLs of a server, or a proxy of another kind
    than the supported one.
    """
    problems = []
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if url := environ.get(name):
            try:
                http_url(url)
            except ValueError as error:
                problems.append(Problem(name, without_password(url), str(error)))
    given = (environ.get("AWS_ENDPOINT_URL_S3"), environ.get("AWS_ENDPOINT_URL"))
    url = next(filter(None, given), "https://s3.amazonaws.com")
    return problems or proxies.unsupported(url, environ)


def read_trusted_keys(settings: Settings) -> Keys | None:
    """
    Return the trusted public keys; None if signatures are not required.

    Raises:
        SettingsError: The keys cannot be read, or there are none.
    """
    if settings.trusted_keys is None:
        return None
    from s3_sync.signature import read_keys  # noqa: PLC0415 - loads cryptography: 8 MiB

    try:
        return read_keys(settings.trusted_keys)
    except ValueError as error:
        problem = Problem("S3_SYNC_TRUSTED_KEYS", settings.trusted_keys, str(error))
        raise SettingsError([problem]) from None


def _check_layout(settings: Settings) -> list[Problem]:
    """
    Return the settings that need the snapshot layout: what belongs together is shown at once.
    """
    if settings.layout == "snapshot":
        return []
    needs = (
        "needs S3_SYNC_LAYOUT=snapshot; then set Airflow's dags_folder to "
        f"{settings.dest_path}/current"
    )
    found = (("SOURCE", settings.source_kind, "listing"), ("GATE", settings.gate, "off"))
    return [Problem(f"{PREFIX}{n}", value, needs) for n, value, usual in found if value != usual]


def _check_globs(settings: Settings) -> list[Problem]:
    """
    Return the patterns that can match no key.
    """
    why = "can match no key: write it as in pkg/*, relative to KEY_PATH, without quotes"
    return [
        Problem(f"{PREFIX}{name}", glob, why)
        for name, globs in (("INCLUDE", settings.include), ("EXCLUDE", settings.exclude))
        for glob in globs
        if glob.endswith("/") or glob[0] in "/'\""
    ]


def _check_source(settings: Settings) -> list[Problem]:
    """
    Return the settings that cannot be used with the source.
    """
    if settings.source_kind == "listing":
        needs = "requires S3_SYNC_SOURCE=release"
        found = {"REVISION": settings.revision, "TRUSTED_KEYS": settings.trusted_keys}
    else:
        needs = "cannot be used with S3_SYNC_SOURCE=release: a release is published as a whole"
        found = {
            "INCLUDE": ",".join(settings.include),
            "EXCLUDE": ",".join(settings.exclude),
            "SETTLE": f"{settings.settle_seconds:g}s" if settings.settle_seconds else "",
            "ALLOW_EMPTY": "true" if settings.allow_empty else "",
            "DELETE": "none" if settings.delete == "none" else "",
        }
    return [Problem(f"{PREFIX}{name}", value, needs) for name, value in found.items() if value]
