"""
The one table of failures: what each reason concerns.

A failure of the source or the volume as a whole ends the cycle. One of a single object holds back
only that object, and one of a release only that release: older ones can still be read.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Reason(NamedTuple):
    """
    Args:
        concerns: ``request``: one request, so a single object until several fail in a row.
        is_retried: Whether the client sends the request again at once.
        is_refusal: Whether S3 refuses to read the object, and may serve others.
        rest_seconds: The shortest pause before the object is tried again.
    """

    concerns: Literal["cycle", "request", "object", "release"]
    is_retried: bool = False
    is_refusal: bool = False
    rest_seconds: float = 0.0


_CYCLE = Reason("cycle")
_OBJECT = Reason("object")
_REFUSED = Reason("object", is_refusal=True)
_RELEASE = Reason("release")

REASONS: dict[str, Reason] = {
    "access_denied_delete": _OBJECT,
    "access_denied_get": _REFUSED,
    "access_denied_kms": _REFUSED,
    # An object that is missing is denied for s3:ListBucket to an identity that may not list.
    "access_denied_list": _REFUSED,
    "access_denied_put": _OBJECT,
    "answer_foreign": Reason("request"),
    "bucket_not_found": _CYCLE,
    "bundle_corrupt": _RELEASE,
    "client_error": _OBJECT,
    "clock_skew": _CYCLE,
    "connection_lost": Reason("request", is_retried=True),
    "credentials_denied": _CYCLE,
    "credentials_expired": _CYCLE,
    "credentials_invalid": Reason("request"),
    "credentials_missing": _CYCLE,
    "credentials_unavailable": _CYCLE,
    "cycle_timeout": _CYCLE,
    "deletion_held": _CYCLE,
    "endpoint_invalid": _CYCLE,
    "endpoint_unreachable": _CYCLE,
    "etag_missing": _OBJECT,
    "file_refused": _OBJECT,
    "gate_undecided": _RELEASE,
    "kms_key_unusable": _REFUSED,
    "link_blocked": _CYCLE,
    "listing_invalid": _CYCLE,
    "name_unresolved": _CYCLE,
    "object_archived": _REFUSED,
    "object_changing": _OBJECT,
    "object_corrupt": _OBJECT,
    # Each try takes most of a cycle, for which snapshots and deletions wait.
    "object_slow": Reason("object", rest_seconds=3600.0),
    "proxy_refused": Reason("request"),
    "redirect_refused": Reason("request"),
    "region_invalid": _CYCLE,
    "release_invalid": _RELEASE,
    "release_missing": _RELEASE,
    "release_replayed": _RELEASE,
    "release_untrusted": _RELEASE,
    "request_in_outage": _RELEASE,
    "request_limit": _RELEASE,
    "request_timeout": Reason("request"),
    "revision_refused": _RELEASE,
    "server_error": Reason("request", is_retried=True),
    "source_empty": _CYCLE,
    "target_denied": _CYCLE,
    "target_failed": _CYCLE,
    "target_full": _CYCLE,
    "throttled": Reason("request", is_retried=True),
    "tls_failed": _CYCLE,
    "too_many_keys": _CYCLE,
    "trusted_keys_invalid": _CYCLE,
}


# What to do, where the same holds for each failure with this reason.
ADVICE = {
    "answer_foreign": "Check what is in front of the endpoint: a firewall, an ingress, a proxy or "
    "a captive portal.",
    "bucket_not_found": "Check AWS_BUCKET for a typo, the account of the credentials, and the "
    "endpoint, which must not contain the bucket.",
    "bundle_corrupt": "Publish the release again. The published files stay.",
    "client_error": "Follow the quoted error. If it gives no cause, check the endpoint and any "
    "proxy in front of it.",
    "clock_skew": "Check the time synchronization of the node.",
    "connection_lost": "If it persists, check for a proxy or firewall that cuts connections.",
    "credentials_expired": "Renew the credentials at their source.",
    "credentials_invalid": "Check that the access key exists, that the secret key belongs to it, "
    "and that no proxy alters requests.",
    "endpoint_unreachable": "Check AWS_ENDPOINT_URL, the security group, the route or VPC endpoint "
    "to S3, and HTTPS_PROXY and NO_PROXY.",
    "kms_key_unusable": "Enable the key, or encrypt the object with another key. If it belongs to "
    "a release, publish the content again with --force.",
    "name_unresolved": "Check AWS_REGION, AWS_ENDPOINT_URL and the DNS of the cluster.",
    "object_archived": "Restore it, or exclude it with S3_SYNC_EXCLUDE. If it belongs to a "
    "release, publish the content again with --force.",
    "proxy_refused": "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY. Put user and password into the "
    "proxy's URL, percent-encoded: http://USER:PASSWORD@HOST:PORT.",
    "redirect_refused": "Check the endpoint and AWS_REGION, and check for a proxy or captive "
    "portal.",
    "request_timeout": "Check the route to S3 (VPC endpoint, security group, proxy) for dropped "
    "packets.",
    "server_error": "If it persists, check the server and any proxy in front of it.",
    "throttled": "This resolves itself. For a large fleet, raise INTERVAL. If it is always the "
    "same object, the store cannot read that object.",
    "tls_failed": "If a company CA signs the traffic, set AWS_CA_BUNDLE to its bundle.",
}


def concerns(reason: str) -> str:
    """
    Return what a reason concerns; an unknown one ends the cycle.
    """
    return REASONS.get(reason, _CYCLE).concerns


def is_refusal(reason: str) -> bool:
    """
    Whether S3 refuses to read one object, and may serve others.
    """
    return REASONS.get(reason, _CYCLE).is_refusal


def is_retried(reason: str) -> bool:
    """
    Whether the client sends a request again at once.
    """
    return REASONS.get(reason, _CYCLE).is_retried


def is_of_current_release(reason: str) -> bool:
    """
    Whether only the current release cannot be shown, so that older ones can still be read.
    """
    return concerns(reason) == "release" or is_refusal(reason)


def rest_seconds(reason: str) -> float:
    """
    Return the shortest pause before an object is tried again.
    """
    return REASONS.get(reason, _CYCLE).rest_seconds
