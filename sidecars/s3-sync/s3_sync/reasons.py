"""
The one table of failures: what each reason concerns, and what to do about it.

A failure of the source or the volume as a whole, such as that of a LIST, ends the
cycle. One of a single object of a listing holds back only that object; so does a path
that the volume refuses (``TargetError`` in `listing.py`). One of a release ends the
cycle, too, if the release is the current one, but older ones can still be published
(``Builder._earlier``) and requested (`command.py`). Which errors of the file system are
the volume's is in `tree.py` (``VOLUME_ERRORS``), how many failed objects end a cycle
in `listing.py` (``FAILURE_STREAK``, ``FAILURES_ALONE``), and when too few can be read
to publish anything in `build.py` (``Builder._require``). A file that cannot be removed
ends a cycle at its end (``InPlaceLayout.publish``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

from sidecar_runtime.aws.credentials import ADVICE
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.volume.files import (
    DENIED_ADVICE,
    FULL_ADVICE,
    LINK_ADVICE,
    OTHER_ADVICE,
)

Concern = Literal["cycle", "request", "object", "refusal", "release"]


class Reason(NamedTuple):
    """
    Args:
        concerns: ``request``: one request, so a single object until several fail in a
            row. ``refusal``: one object, which S3 refuses to read, while it may serve
            others.
        advice: What to do. Where an error has advice of its own, which knows the case:
            what holds for each.
    """

    concerns: Concern = "cycle"
    advice: str = ""


_WRITTEN = (
    "Find out what else writes there besides s3-sync. Then publish again or roll back, with "
    "--sign-key and a trusted key where S3_SYNC_TRUSTED_KEYS is set."
)
_IN_RELEASE = "If it belongs to a release, publish the content again with --force."

_REASONS_BY_CONCERN: dict[Concern, dict[str, str]] = {
    "cycle": {
        **ADVICE,
        "bucket_not_found": "Check AWS_BUCKET for a typo, the account of the credentials, and the "
        "endpoint, which must not contain the bucket.",
        "clock_skew": "Check the time synchronization of the node.",
        "credentials_expired": "Renew the credentials at their source.",
        "cycle_timeout": "The next cycle goes on with what is missing.",
        "deletion_held": "If this is a mistake, undo it at the source before a pod is replaced: a "
        "new volume holds nothing back. If it is intended, wait, or send SIGHUP.",
        "endpoint_invalid": "Fix that URL; a host is in ASCII.",
        "endpoint_unreachable": "Check AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, the security "
        "group, the route or VPC endpoint to S3, and HTTPS_PROXY and NO_PROXY.",
        "files_damaged": "Nothing, if it ends: they are restored. Find out what writes to the "
        "volume.",
        "link_blocked": LINK_ADVICE,
        "link_elsewhere": "Nothing, if it ends: it is set again. Find out what changes the link.",
        "listing_invalid": "Nothing was changed. If it persists, find out what alters S3's "
        "responses (a proxy?), or whether the store knows ListObjectsV2.",
        "name_unresolved": "Check AWS_REGION, AWS_ENDPOINT_URL and the DNS of the cluster.",
        "nothing_published": "Wait for the first cycle; if it fails, it says why.",
        "region_invalid": "Fix AWS_REGION.",
        "source_empty": "Correct KEY_PATH, S3_SYNC_SOURCE, or the filters. Nothing was deleted.",
        # Not a failure: what comes may belong together.
        "source_unsettled": "Wait until the upload is over. If it never is, find out what writes "
        "there all the time, exclude it with S3_SYNC_EXCLUDE, or shorten S3_SYNC_SETTLE.",
        "target_denied": DENIED_ADVICE,
        "target_failed": OTHER_ADVICE,
        "target_full": FULL_ADVICE,
        "target_unreadable": "Check the volume, and that DEST_PATH is a folder on it.",
        "too_many_keys": "Set KEY_PATH to the DAG folder only.",
    },
    "request": {
        "answer_foreign": "Check the firewall, ingress, proxy or captive portal before the "
        "endpoint.",
        "connection_lost": "If it persists, check for a proxy or firewall that cuts connections.",
        "credentials_invalid": "Check that the access key exists, that the secret key belongs to "
        "it, and that no proxy alters requests.",
        "proxy_refused": "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY. Put user and password into "
        "the proxy's URL, percent-encoded: http://USER:PASSWORD@HOST:PORT.",
        "redirect_refused": "Check the endpoint and AWS_REGION; look for a proxy or captive "
        "portal.",
        "request_timeout": "Check the route to S3 (VPC endpoint, security group, proxy) for lost "
        "packets.",
        "server_error": "If it persists, check the server and any proxy in front of it.",
        "throttled": "This resolves itself. For a large fleet, raise INTERVAL. If it is always the "
        "same object, the store cannot read that object.",
    },
    "object": {
        "access_denied_delete": "Allow s3:DeleteObject in the role's policy.",
        "access_denied_put": "Allow s3:PutObject in the role's policy.",
        "blocked": "Move it out of DEST_PATH, or rename the key.",
        "client_error": "Follow the quoted error; check the endpoint and any proxy in front of it.",
        "etag_missing": "Write it again through the S3 API, not directly into the store's files, "
        "or exclude it with S3_SYNC_EXCLUDE.",
        "object_changing": "This resolves itself once the writer has finished. If it persists, the "
        "store's listing and the object have different ETags, or the key contains a control "
        "character.",
        "object_corrupt": "The file on disk was not changed. If it persists, find out what alters "
        "S3's responses, such as a proxy.",
        "object_slow": "Check the network if it is small. Otherwise raise S3_SYNC_TIMEOUT to more "
        "than its download takes, or exclude it with S3_SYNC_EXCLUDE. SIGHUP tries it now; else "
        "it is tried within an hour.",
    },
    # An object that is missing is denied for s3:ListBucket to an identity that may not
    # list.
    "refusal": {
        "access_denied_get": "Allow s3:GetObject in the role's policy; look for a Deny in those of "
        "the bucket and the endpoint.",
        "access_denied_kms": "Allow kms:Decrypt (to publish: kms:GenerateDataKey) in the role's "
        "and the key's policy.",
        "access_denied_list": "Allow s3:ListBucket on the bucket; check AWS_BUCKET.",
        "kms_key_unusable": "Enable the key, or encrypt the object with another key. "
        f"{_IN_RELEASE}",
        "object_archived": f"Restore it, or exclude it with S3_SYNC_EXCLUDE. {_IN_RELEASE}",
    },
    "release": {
        "bundle_corrupt": "If it persists, publish the release again with --force, or roll back. "
        "The published files stay.",
        "condition_refused": "In a versioned bucket, versitygw and S3Mock refuse to write a "
        "deleted object again: put any object there, and publish with --force; or to another "
        "prefix, if versitygw runs with --sidecar. Ceph refuses each condition: use a bucket that "
        "was never versioned.",
        "gate_undecided": "Check the gate's program and its timeout; after exit code 137, its "
        "memory.",
        "prefix_taken": "Publish to a prefix of its own, such as dags-releases beside dags, and "
        "set KEY_PATH of the pods to it; or pass --force, if both should be there.",
        "publish_conflict": "Check `s3-sync releases`; if your release should be current, run the "
        "command again. Let CI run one publish at a time.",
        "publish_lost": "The conditional writes of this store are not atomic, or somebody has "
        "rolled back. Check `s3-sync releases`; if your release should be current, run the "
        "command again, and never two at a time.",
        "release_invalid": _WRITTEN,
        "release_missing": "Publish, or correct KEY_PATH or the pin.",
        "release_replayed": "It could bring back a release with a known flaw. Find out who writes "
        "there. The next `s3-sync publish` or `rollback` replaces it.",
        "release_untrusted": _WRITTEN,
        "request_limit": "Find out which consumer requests so many.",
        "revision_refused": "Fix the files and lines that it names.",
        "store_unsupported": "Without conditional writes, two publishers overwrite each other "
        "unseen: nothing was made current. Use Amazon S3, MinIO, versitygw, Ceph (a bucket that "
        "is not versioned) or another store that has them.",
        # Only the pointer needs them: an id proves its own content.
        "trusted_keys_invalid": "Restore the public keys, in PEM format; nothing is trusted until "
        "then.",
    },
}
# The client sends these requests again at once. The CA bundle is read again for that: it
# may have been rotated.
RETRIED = ("connection_lost", "server_error", "throttled", "tls_failed")
# The shortest pause before the object is tried again: each try takes most of a cycle,
# for which snapshots and deletions wait.
REST_SECONDS = {"object_slow": 3600.0}

REASONS = dict(
    sorted(
        (name, Reason(concern, advice))
        for concern, advices in _REASONS_BY_CONCERN.items()
        for name, advice in advices.items()
    )
)


# Why files could not be read or written, by path.
Failures: TypeAlias = Mapping[str, SidecarError]


class Permission(NamedTuple):
    """
    A required IAM action, and its resource.
    """

    action: str
    arn: str


class S3Error(SidecarError):
    """
    S3 refused or failed a request; by default with the advice of its reason.

    Args:
        permission: The missing permission, if that is the cause.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        advice: str = "",
        permission: Permission | None = None,
    ) -> None:
        super().__init__(
            reason, message, advice or REASONS.get(reason, Reason()).advice
        )
        self.permission = permission


class SourceError(S3Error):
    """
    The source fails as a whole, unless the table says that it concerns one object.
    """


class ObjectError(S3Error):
    """
    One object fails; other objects are still tried.
    """


class ObjectMoved(Exception):
    """
    The object was changed or deleted since it was listed; the next cycle handles it.
    """


def failure(reason: str, message: str) -> SidecarError:
    """
    Return a failure of this machine, or what a cycle waits for, with the advice of its
    reason.
    """
    return SidecarError(reason, message, REASONS[reason].advice)


def link_elsewhere() -> SidecarError:
    """
    Return what is said while the link of a snapshot does not lead to it.
    """
    return failure(
        "link_elsewhere", "the link `current` does not lead to the published revision"
    )


def concern_of(reason: str) -> str:
    """
    Return what a reason concerns; an unknown one ends the cycle.
    """
    return REASONS.get(reason, Reason()).concerns


def is_of_one_release(reason: str) -> bool:
    """
    Whether only one release cannot be shown, so that others can still be read.
    """
    return concern_of(reason) in ("release", "refusal")
