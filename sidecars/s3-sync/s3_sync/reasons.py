"""
The one table of failures: what each reason concerns, and what to do about it.

A failure of the source or the volume as a whole, such as that of a LIST, ends the
cycle. One of a single object of a listing holds back only that object; so does a path
that the volume refuses (``TargetError`` in `listing.py`). One of a release ends the
cycle, too, if the release is the current one, but older ones can still be published
(``Builder._earlier``) and requested (`sidecar.py`). Which errors of the file system are
the volume's is in `files.py` (``VOLUME_ERRORS``), how many failed objects end a cycle
in `listing.py` (``FAILURE_STREAK``, ``FAILURES_ALONE``), and when too few can be read
to publish anything in `build.py` (``Builder._require``). A file that cannot be removed
ends a cycle at its end (``InPlaceLayout.publish``).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from sidecar_runtime.aws.credentials import ADVICE
from sidecar_runtime.errors import SidecarError


class Reason(NamedTuple):
    """
    Args:
        concerns: ``request``: one request, so a single object until several fail in a
            row. ``refusal``: one object, which S3 refuses to read, while it may serve
            others.
        advice: What to do, where the same holds for each failure with this reason.
        is_retried: Whether the client sends the request again at once.
        rest_seconds: The shortest pause before the object is tried again.
    """

    concerns: Literal["cycle", "request", "object", "refusal", "release"] = "cycle"
    advice: str = ""
    is_retried: bool = False
    rest_seconds: float = 0.0


# Reasons whose advice depends on the case.
_OF_CYCLE = """
credentials_denied credentials_missing credentials_unavailable cycle_timeout deletion_held
endpoint_invalid link_blocked listing_invalid region_invalid source_empty target_denied
target_failed target_full too_many_keys trusted_keys_invalid
"""
_OF_ONE = "access_denied_delete access_denied_put blocked etag_missing object_corrupt"
# An object that is missing is denied for s3:ListBucket to an identity that may not
# list.
_REFUSED = "access_denied_get access_denied_kms access_denied_list"
_OF_RELEASE = """
gate_undecided release_invalid release_missing release_replayed release_untrusted
request_limit revision_refused
"""
_IN_RELEASE = "If it belongs to a release, publish the content again with --force."

REASONS = {
    **dict.fromkeys(_OF_CYCLE.split(), Reason("cycle")),
    **dict.fromkeys(_OF_ONE.split(), Reason("object")),
    **dict.fromkeys(_REFUSED.split(), Reason("refusal")),
    **dict.fromkeys(_OF_RELEASE.split(), Reason("release")),
    "answer_foreign": Reason(
        "request",
        "Check the firewall, ingress, proxy or captive portal before the endpoint.",
    ),
    "bucket_not_found": Reason(
        "cycle",
        "Check AWS_BUCKET for a typo, the account of the credentials, and the endpoint, which must "
        "not contain the bucket.",
    ),
    "bundle_corrupt": Reason(
        "release",
        "If it persists, publish the release again with --force, or roll back. The published files "
        "stay.",
    ),
    "client_error": Reason(
        "object",
        "Follow the quoted error; check the endpoint and any proxy in front of it.",
    ),
    "clock_skew": Reason("cycle", "Check the time synchronization of the node."),
    "condition_refused": Reason(
        "release",
        "In a versioned bucket, some stores (versitygw, S3Mock) refuse to write a deleted object "
        "as a new one: delete all its versions. Ceph refuses each condition there: use a bucket "
        "that was never versioned.",
    ),
    "connection_lost": Reason(
        "request",
        "If it persists, check for a proxy or firewall that cuts connections.",
        True,
    ),
    "credentials_expired": Reason("cycle", "Renew the credentials at their source."),
    "credentials_invalid": Reason(
        "request",
        "Check that the access key exists, that the secret key belongs to it, and that no proxy "
        "alters requests.",
    ),
    "endpoint_unreachable": Reason(
        "cycle",
        "Check AWS_ENDPOINT_URL, the security group, the route or VPC endpoint to S3, and "
        "HTTPS_PROXY and NO_PROXY.",
    ),
    "files_damaged": Reason(
        "cycle",
        "Nothing, if it ends: they are restored. Find out what writes to the volume.",
    ),
    "kms_key_unusable": Reason(
        "refusal",
        f"Enable the key, or encrypt the object with another key. {_IN_RELEASE}",
    ),
    "link_elsewhere": Reason(
        "cycle", "Nothing, if it ends: it is set again. Find out what changes the link."
    ),
    "name_unresolved": Reason(
        "cycle", "Check AWS_REGION, AWS_ENDPOINT_URL and the DNS of the cluster."
    ),
    "nothing_published": Reason(
        "cycle", "Wait for the first cycle; if it fails, it says why."
    ),
    "object_archived": Reason(
        "refusal", f"Restore it, or exclude it with S3_SYNC_EXCLUDE. {_IN_RELEASE}"
    ),
    "object_changing": Reason(
        "object",
        "This resolves itself once the writer has finished. If it persists, the store's listing "
        "and the object have different ETags, or the key contains a control character.",
    ),
    # Each try takes most of a cycle, for which snapshots and deletions wait.
    "object_slow": Reason(
        "object",
        "Check the network if it is small. Otherwise raise S3_SYNC_TIMEOUT to more than its "
        "download takes, or exclude it with S3_SYNC_EXCLUDE. It is tried again within an hour; "
        "SIGHUP tries it now.",
        rest_seconds=3600.0,
    ),
    "prefix_taken": Reason(
        "release",
        "Publish to a prefix of its own, such as dags-releases beside dags, and set KEY_PATH of "
        "the pods to it; or pass --force, if both should be there.",
    ),
    "proxy_refused": Reason(
        "request",
        "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY. Put user and password into the proxy's URL, "
        "percent-encoded: http://USER:PASSWORD@HOST:PORT.",
    ),
    "publish_conflict": Reason(
        "release",
        "Check `s3-sync releases`; if your release should be current, run the command again. Let "
        "CI run one publish at a time.",
    ),
    "publish_lost": Reason(
        "release",
        "The conditional writes of this store are not atomic, or somebody has rolled back. Check "
        "`s3-sync releases`; if your release should be current, run the command again. Never run "
        "two publishes at a time here.",
    ),
    "redirect_refused": Reason(
        "request",
        "Check the endpoint and AWS_REGION; look for a proxy or captive portal.",
    ),
    "request_timeout": Reason(
        "request",
        "Check the route to S3 (VPC endpoint, security group, proxy) for lost packets.",
    ),
    "server_error": Reason(
        "request",
        "If it persists, check the server and any proxy in front of it.",
        True,
    ),
    # Not a failure: what comes may belong together.
    "source_unsettled": Reason(
        "cycle",
        "Wait until the upload is over. If it never is, find out what writes there all the time, "
        "exclude it with S3_SYNC_EXCLUDE, or shorten S3_SYNC_SETTLE.",
    ),
    "store_unsupported": Reason(
        "release",
        "Without them, two publishers overwrite each other unseen, so nothing was made current. "
        "Use Amazon S3, MinIO, Ceph (a bucket that is not versioned), versitygw or another store "
        "that has them.",
    ),
    "target_unreadable": Reason(
        "cycle", "Check the volume, and that DEST_PATH is a folder on it."
    ),
    "throttled": Reason(
        "request",
        "This resolves itself. For a large fleet, raise INTERVAL. If it is always the same object, "
        "the store cannot read that object.",
        True,
    ),
    # The CA bundle is read again for the next request: it may have been rotated.
    "tls_failed": Reason("cycle", ADVICE["tls_failed"], True),
}


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
    said = "the link `current` does not lead to the published revision"
    return failure("link_elsewhere", said)


def concerns(reason: str) -> str:
    """
    Return what a reason concerns; an unknown one ends the cycle.
    """
    return REASONS.get(reason, Reason()).concerns


def is_of_current_release(reason: str) -> bool:
    """
    Whether only the current release cannot be shown, so that older ones can still be
    read.
    """
    return concerns(reason) in ("release", "refusal")
