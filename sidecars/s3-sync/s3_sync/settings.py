"""
The settings of s3-sync; the four names of the first published example carry no prefix.

What `AWS_*` means (region, credentials, endpoint, certificates) is botocore's to say: see
:mod:`sidecar_runtime.aws.chain`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from s3_sync.revision import is_revision
from s3_sync.signature import Keys, read_keys
from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.gate.settings import GateSettings, check_gate
from sidecar_runtime.parsers import (
    YEAR_SECONDS,
    absolute_path,
    allows,
    boolean,
    byte_size,
    choice,
    count,
    duration,
    http_url,
    mode,
    words,
)
from sidecar_runtime.settings import inherited, load, setting, slips

PREFIX = "S3_SYNC_"

INSTEAD = slips(
    PREFIX,
    {
        "AWS_BUCKET": "BUCKET AWS_BUCKET S3_BUCKET",
        "KEY_PATH": "KEY KEY_PATH PREFIX",
        "DEST_PATH": "DEST DEST_PATH TARGET",
        "INTERVAL": "INTERVAL PERIOD",
        "AWS_REGION": "REGION",
        "AWS_ENDPOINT_URL_S3": "ENDPOINT ENDPOINT_URL AWS_ENDPOINT_URL",
        "S3_SYNC_ONE_SHOT": "ONE_TIME",
        "S3_SYNC_LAYOUT": "SNAPSHOT SNAPSHOTS",
        "S3_SYNC_RETAIN_COUNT": "RETAIN",
        "S3_SYNC_RETAIN_FOR": "RETENTION RETAIN_SECONDS RETAIN_MINUTES",
        "S3_SYNC_SETTLE": "SETTLE_SECONDS",
        "S3_SYNC_REVISION": "PIN RELEASE",
        "S3_SYNC_TRUSTED_KEYS": "TRUSTED_KEY PUBLIC_KEY PUBLIC_KEYS VERIFY_KEY VERIFY_KEYS",
        "S3_SYNC_SIGN_KEY": "PRIVATE_KEY SIGNING_KEY",
        "S3_SYNC_BUCKET_ACCESS": "ANONYMOUS NO_SIGN_REQUEST REQUEST_PAYER REQUESTER_PAYS",
        "S3_SYNC_GATE": "VALIDATE",
        "S3_SYNC_GATE_GRAMMAR": "GRAMMAR GATE_PYTHON GATE_VERSION",
    },
)
# Without a prefix: the whole bucket would be taken for the DAG folder.
INSTEAD |= dict.fromkeys(
    (
        "KEY_PATHS",
        "KEY_PREFIX",
        "AWS_KEY_PATH",
        "AWS_PREFIX",
        "S3_KEY_PATH",
        "S3_PATH",
        "S3_PREFIX",
    ),
    "KEY_PATH",
)

_BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_ACCESS_POINT = re.compile(r"arn:(aws[a-z-]*):s3:([a-z0-9-]+):(\d{12}):accesspoint[:/]([a-z0-9-]+)")


@allows("a bucket's name, or the ARN of an access point")
def bucket(text: str) -> str:
    """
    Read a bucket's name, or the ARN of an access point.

    Kinds of buckets that the data plane does not speak are refused here, by name.
    """
    name = text.strip()
    if name.lower().startswith("s3://"):
        raise ValueError(f"is a URL; write {_settings_of(name)}")
    if name.startswith("arn:"):
        if name.endswith(".mrap"):
            raise ValueError("is a multi-region access point, which s3-sync does not support")
        if ":s3-object-lambda:" in name:
            raise ValueError("is an Object Lambda access point, which s3-sync does not support")
        if not _ACCESS_POINT.fullmatch(name):
            raise ValueError(
                "is an ARN, but not that of an S3 access point; write the bucket's name"
            )
        return name
    if re.search(r"--[a-z0-9-]+--x-s3$", name):
        raise ValueError("is an S3 Express directory bucket, which s3-sync does not support")
    if not _BUCKET_NAME.fullmatch(name):
        raise ValueError("is not a bucket's name (3 to 63 letters, digits, dots, hyphens)")
    return name


@allows("a prefix such as airflow/dags")
def key_path(text: str) -> str:
    """
    Read a prefix; slashes around it are trimmed, and it always means a whole folder.
    """
    path = text.strip()
    if path.lower().startswith("s3://"):
        raise ValueError(f"is a URL; write {_settings_of(path)}")
    return path.strip("/")


def _settings_of(url: str) -> str:
    bucket, _, key = url[len("s3://") :].partition("/")
    path = key.strip("/")
    return f"AWS_BUCKET={bucket}{path and f' and KEY_PATH={path}'}"


@allows("64 hexadecimal digits, as `s3-sync releases --output json` shows")
def revision(text: str) -> str:
    """
    Read the name of a release.
    """
    if not is_revision(text.strip()):
        raise ValueError("is not a revision, which has 64 hexadecimal digits")
    return text.strip()


@allows("a path")
def path(text: str) -> str:
    """
    Read a path, absolute or not.
    """
    if "\0" in text:
        raise ValueError("is not a path")
    return text


def key_file(text: str) -> str:
    """
    Read the path of a key; what is put there instead, by mistake, may be the key itself.
    """
    if is_key(text):
        raise ValueError("is a key, not the path of a file with one")
    return path(text)


def is_key(text: str) -> bool:
    return "-----BEGIN" in text or "\n" in text


def without_key(text: str) -> str:
    """
    Return what may be shown of the setting of a key.
    """
    return "***" if is_key(text) else text


@allows("a percentage from 0% to 100%")
def percent(text: str) -> int:
    """
    Read a percentage, with or without its sign.
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
        text="The folder in the bucket. `dags` never matches `dags-old/`. Empty or `/`: the whole "
        "bucket.",
    )
    dest_path: str = setting(
        "DEST_PATH",
        absolute_path,
        prefixed=False,
        required=True,
        text="The folder to keep equal to it; made if missing.",
    )
    http_bind: tuple[str, int] = inherited("http_bind", default=":9811")
    endpoint_url: str | None = setting(
        "AWS_ENDPOINT_URL",
        http_url,
        prefixed=False,
        text="An S3-compatible store instead of AWS; for S3 alone: AWS_ENDPOINT_URL_S3.",
    )
    endpoint_url_s3: str | None = setting(
        "AWS_ENDPOINT_URL_S3",
        http_url,
        prefixed=False,
        text="The same, and only for S3: STS requests still go to AWS. Wins over AWS_ENDPOINT_URL.",
    )
    layout: str = setting(
        "LAYOUT",
        choice("in-place", "snapshot"),
        default="in-place",
        text="How files appear: directly under DEST_PATH, each replaced as a whole; or under "
        "DEST_PATH/current, a link that shows one complete revision.",
    )
    source_kind: str = setting(
        "SOURCE",
        choice("listing", "release"),
        default="listing",
        text="What to follow: everything listed under the prefix, or the release that was "
        "published there last (`s3-sync publish`).",
    )
    revision: str | None = setting(
        "REVISION",
        revision,
        text="Stay on this release, whatever is published; for S3_SYNC_SOURCE=release.",
    )
    trusted_keys: str | None = setting(
        "TRUSTED_KEYS",
        key_file,
        show=without_key,
        allowed="a file, or a folder of files, of Ed25519 public keys in PEM",
        text="Refuse releases that none of these keys has signed, and pointers older than one "
        "that this volume has seen. Read again when they change. Unset: nothing must be signed.",
    )
    sign_key: str | None = setting(
        "SIGN_KEY",
        key_file,
        show=without_key,
        allowed="a file with an Ed25519 private key in PEM, without a password",
        text="For the commands that publish: the key to sign with. It has no place in a pod.",
    )
    bucket_access: str = setting(
        "BUCKET_ACCESS",
        choice("private", "requester-pays", "public"),
        default="private",
        text="How the bucket is read: private: requests are signed. requester-pays: signed, and "
        "the requests are on your bill. public: nothing is signed, no credentials are looked for.",
    )
    include: tuple[str, ...] = setting(
        "INCLUDE",
        words,
        default="",
        allowed="globs separated by commas",
        text="Take only keys that match one of these. Relative to KEY_PATH; `*` matches `/` too.",
    )
    exclude: tuple[str, ...] = setting(
        "EXCLUDE",
        words,
        default="",
        allowed="globs separated by commas",
        text="Leave out keys that match one of these; wins over INCLUDE.",
    )
    delete: str = setting(
        "DELETE",
        choice("managed", "none", "all"),
        default="managed",
        text="What is deleted when its key is gone: files that s3-sync published, nothing, or all "
        "files that are not in the bucket (`__pycache__` stays).",
    )
    max_delete_percent: int = setting(
        "MAX_DELETE",
        percent,
        default="80%",
        text="If more than this share of the files, and more than 20, disappear at once, the "
        "listing is held back: that is usually a mistake. What has moved is not counted. "
        "100%: never.",
    )
    max_delete_hold_seconds: float = setting(
        "MAX_DELETE_HOLD",
        duration(),
        default="15m",
        text="For how long it is held back; SIGHUP ends that at once.",
    )
    max_keys: int = setting(
        "MAX_KEYS",
        count,
        default="200000",
        text="More keys under the prefix are an error: each 1,000 cost about 1 MiB. 0: no limit.",
    )
    verify: str = setting(
        "VERIFY",
        choice("auto", "strict", "lenient"),
        default="auto",
        text="Whether an ETag that looks like an MD5 must be that of the content: on AWS, and "
        "where the store has shown that it is; always; or never. Checksums always count.",
    )
    allow_empty: bool = setting(
        "ALLOW_EMPTY",
        boolean,
        default="false",
        text="Whether a prefix without files is a fact to follow, not an error.",
    )
    settle_seconds: float = setting(
        "SETTLE",
        duration(),
        default="0",
        text="Apply a changed listing only once it has stayed the same for this long, but for "
        "objects that change all the time: half an upload is not published. 0: at once.",
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
        text="A snapshot stays for at least this long after it was replaced.",
    )
    keep_asked: int = setting(
        "KEEP_ASKED",
        count,
        default="20",
        text="How many older releases to keep that a pod has asked for (DAG versions of Airflow "
        "3), beside those of RETAIN_COUNT. 0: nobody may ask.",
    )
    keep_asked_bytes: int = setting(
        "KEEP_ASKED_BYTES",
        byte_size,
        default="256Mi",
        text="What they may take on the volume, beyond what they share with the current release; "
        "the ones seen in use last stay.",
    )
    file_mode: int = setting(
        "FILE_MODE",
        mode,
        default="0644",
        text="The mode of published files; in snapshots without write bits.",
    )
    fsync: bool = setting(
        "FSYNC",
        boolean,
        default="false",
        text="Flush each file to disk before it is published. For persistent volumes; an "
        "emptyDir dies with its node anyway.",
    )

    @property
    def prefix(self) -> str:
        """
        The prefix of all keys, with its slash; empty for the whole bucket.
        """
        return f"{self.key_path}/" if self.key_path else ""

    @property
    def answers(self) -> bool:
        """
        Whether consumers may ask for older releases.
        """
        is_possible = self.source_kind == "release" and self.layout == "snapshot"
        return is_possible and bool(self.keep_asked) and not (self.one_shot or self.dry_run)

    @property
    def source(self) -> str:
        """
        The source as people write it.
        """
        return f"s3://{self.bucket}/{self.prefix}"


def load_settings(environ: Mapping[str, str]) -> tuple[Settings, dict[str, str]]:
    """
    Read the settings; return them, and the variables that nobody reads, as :func:`load` does.

    Raises:
        SettingsError: One or more are wrong; all of them are named.
    """
    return load(Settings, PREFIX, environ, instead=INSTEAD, check=_check)


def read_trusted_keys(settings: Settings) -> Keys | None:
    """
    Return the public keys that are trusted; None where nothing has to be signed.

    Raises:
        SettingsError: There are none, so nothing would be trusted.
    """
    if settings.trusted_keys is None:
        return None
    try:
        return read_keys(settings.trusted_keys)
    except ValueError as error:
        problem = Problem("S3_SYNC_TRUSTED_KEYS", settings.trusted_keys, str(error))
        raise SettingsError([problem]) from None


def _check(settings: Settings) -> list[Problem]:
    if sys.getfilesystemencoding().lower() != "utf-8":
        locale = os.environ.get("LC_ALL") or os.environ.get("LANG") or ""
        return [Problem("LC_ALL", locale, "is not a UTF-8 locale; names of keys need one")]
    if settings.bucket.startswith("arn:") and (settings.endpoint_url_s3 or settings.endpoint_url):
        return [Problem("AWS_BUCKET", settings.bucket, "is an ARN; with an endpoint, write a name")]
    if os.path.exists(settings.dest_path) and not os.path.isdir(settings.dest_path):
        return [Problem("DEST_PATH", settings.dest_path, "is a file, not a folder")]
    return [*_check_source(settings), *check_gate(settings, PREFIX)]


def _check_source(settings: Settings) -> list[Problem]:
    """
    Refuse what has no meaning with the source.
    """
    if settings.source_kind == "listing":
        only = {
            "S3_SYNC_REVISION": settings.revision,
            "S3_SYNC_TRUSTED_KEYS": settings.trusted_keys,
        }
        needs = "needs S3_SYNC_SOURCE=release"
        return [Problem(name, value, needs) for name, value in only.items() if value]
    whole = "a release is published whole"
    found = {
        "S3_SYNC_INCLUDE": (",".join(settings.include), whole),
        "S3_SYNC_EXCLUDE": (",".join(settings.exclude), f"{whole}; publish has --exclude"),
        "S3_SYNC_SETTLE": (
            f"{settings.settle_seconds:g}s" if settings.settle_seconds else "",
            "half an upload of a release is never seen",
        ),
        "S3_SYNC_ALLOW_EMPTY": ("true" if settings.allow_empty else "", "a release is never empty"),
        "S3_SYNC_DELETE": (
            "none" if settings.delete == "none" else "",
            "a folder with files of older releases is not a release",
        ),
    }
    return [
        Problem(name, value, f"cannot go with S3_SYNC_SOURCE=release: {why}")
        for name, (value, why) in found.items()
        if value
    ]
