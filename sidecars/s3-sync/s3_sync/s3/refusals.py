"""
Translates error responses of S3 into reasons, messages and advice.
"""

from __future__ import annotations

import re
from html import unescape
from typing import Literal, NamedTuple, get_args

from s3_sync.reasons import (
    ObjectError,
    ObjectMoved,
    Permission,
    S3Error,
    SourceError,
    concern_of,
)
from s3_sync.s3.http import Answer

Operation = Literal["list", "get", "pointer", "manifest", "bundle", "put", "delete"]

ACTIONS: dict[Operation, str] = {
    **dict.fromkeys(get_args(Operation), "s3:GetObject"),
    "list": "s3:ListBucket",
    "put": "s3:PutObject",
    "delete": "s3:DeleteObject",
}

_EXPIRED = (
    "ExpiredToken",
    "ExpiredTokenException",
    "TokenRefreshRequired",
    "InvalidToken",
)
# Google Cloud Storage says InvalidSecurity for an unknown key.
_ROTATED = ("InvalidAccessKeyId", "InvalidSecurity", "SignatureDoesNotMatch")
# Codes with a reason of their own; statuses with a code; statuses without one, which
# S3 always sends.
_CODES = {
    **dict.fromkeys(_EXPIRED, "credentials_expired"),
    **dict.fromkeys(_ROTATED, "credentials_invalid"),
    "RequestTimeTooSkewed": "clock_skew",
    "InvalidObjectState": "object_archived",
    "RequestTimeout": "server_error",
    "SlowDown": "throttled",
    "ServiceUnavailable": "throttled",
    # MinIO's, where too few of its disks answer
    "SlowDownRead": "throttled",
    "SlowDownWrite": "throttled",
}
_STATUSES = {404: "bucket_not_found", 429: "throttled"}
_FOREIGN = {403: "answer_foreign", 404: "answer_foreign", 407: "proxy_refused"}

_DENIED = re.compile(
    r"is not authorized to perform: (\S+)(?: on resource: \"?([^\"\s]+)\"?)?"
)
# The kinds of denied actions. A different policy statement grants each, and often
# another team.
_KIND = re.compile(r"(?:s3:)?(list|get|put|delete|kms)", re.IGNORECASE)
# The region becomes part of a host name and a header.
REGION = re.compile(r"[a-z0-9-]{1,32}")
# Region prefix, partition, and domain of the endpoints; all other public regions are in
# "aws".
# https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/partitions.html
PARTITIONS = (
    ("cn-", "aws-cn", "amazonaws.com.cn"),
    ("us-gov-", "aws-us-gov", "amazonaws.com"),
    ("eusc-", "aws-eusc", "amazonaws.eu"),
    ("us-iso-", "aws-iso", "c2s.ic.gov"),
    ("us-isob-", "aws-iso-b", "sc2s.sgov.gov"),
    ("us-isof-", "aws-iso-f", "csp.hci.ic.gov"),
    ("eu-isoe-", "aws-iso-e", "cloud.adc-e.uk"),
    ("", "aws", "amazonaws.com"),
)


def is_stale(code: str, operation: Operation) -> bool:
    """
    Whether credentials should be fetched again once: they were rotated or have expired.
    What a proxy alters in the path of one object only looks like another secret.
    """
    is_of_object = code == "SignatureDoesNotMatch" and operation in ("get", "bundle")
    return code in (*_EXPIRED, *_ROTATED) and not is_of_object


class Request(NamedTuple):
    """
    A request, as the error describes it.

    Args:
        bucket: The bucket's name, or the ARN of an access point.
        key: The key of the object, or the prefix of the listing.
        prefix: The prefix of the synced folder.
    """

    operation: Operation
    bucket: str
    key: str
    prefix: str
    region: str

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    def arn(self, key: str) -> str:
        """
        Return the ARN of the requested resource: of the bucket, or of these keys in it.
        """
        is_point = self.bucket.startswith("arn:")
        arn = "" if is_point else f"arn:{partition_of(self.region)[0]}:s3:::"
        keys = "" if self.operation == "list" else f"{'/object' * is_point}/{key}"
        return f"{arn}{self.bucket}{keys}"


def partition_of(region: str) -> tuple[str, str]:
    """
    Return the partition of a region, and the domain of its endpoints.
    """
    return next(
        (name, suffix) for start, name, suffix in PARTITIONS if region.startswith(start)
    )


class Refusal(NamedTuple):
    """
    The error document: code and message as S3 sent them; empty if S3 sent none.
    """

    code: str
    message: str
    region: str


def read_refusal(answer: Answer) -> Refusal:
    """
    Read the error document, in any order and namespace; never fails.
    """
    text = answer.body[:65536].decode(errors="replace")

    def find(tag: str) -> str:
        found, end, _ = text.partition(f"<{tag}>")[2].partition(f"</{tag}>")
        return unescape(found).strip() if end else ""

    region = answer.headers.get("x-amz-bucket-region", "") or find("Region")
    return Refusal(
        find("Code"), find("Message"), region if REGION.fullmatch(region) else ""
    )


def explain(
    answer: Answer, refusal: Refusal, request: Request
) -> S3Error | ObjectMoved:
    """
    Return the error for a response that is not a success; it quotes S3, which knows
    best.

    A failed listing is a failure of the source; a failed object may be the only one.
    """
    status = answer.status
    code = refusal.code
    operation = request.operation
    said = f"{status} {code} {refusal.message}".strip()
    advice = ""
    permission = None
    if status == 403 and code.startswith("AccessDenied"):
        reason, said, advice, permission = _explain_denied(refusal, request, said)
    else:
        # Only S3 itself can say so: an ingress answers 404 while its server restarts.
        is_gone = (
            status == 412
            or (status == 404 and code != "")
            or (status == 416 and operation != "bundle")
        )
        is_bucket = code in ("NoSuchBucket", "NoSuchAccessPoint")
        if is_gone and operation != "list" and not is_bucket:
            return ObjectMoved()
        reason = _reason_of(status, code, operation)
        by = "S3"
        if not code:  # S3 sends one with each list and GET
            kind = answer.headers.get("content-type", "no content type").partition(";")[
                0
            ]
            by = f"{answer.headers.get('server') or 'a server without a name'} ({kind})"
        place = answer.headers.get("location")
        if place:
            said += f", redirecting to {place!r}"
        said = f"{by} answered {request.url} with {said}"
    is_source = operation == "list" or concern_of(reason) == "cycle"
    return (SourceError if is_source else ObjectError)(reason, said, advice, permission)


def _reason_of(status: int, code: str, operation: Operation) -> str:
    """
    Return the reason for a response that is neither a success nor a denial; only a code
    makes it S3's verdict.
    """
    statuses = _STATUSES if code else _FOREIGN
    if code in _CODES:
        return _CODES[code]
    if code.startswith("KMS."):
        return "kms_key_unusable"
    if status == 416 and operation == "bundle":
        return "bundle_corrupt"
    if status in statuses:
        return statuses[status]
    if 300 <= status < 400:
        return "redirect_refused"
    return "server_error" if status >= 500 or status in (408, 429) else "client_error"


def _explain_denied(
    refusal: Refusal, request: Request, said: str
) -> tuple[str, str, str, Permission]:
    """
    Return reason, message, advice and missing permission.
    """
    denied = _DENIED.search(refusal.message)
    action, resource = denied.groups() if denied else (ACTIONS[request.operation], None)
    scope = request.arn(f"{request.prefix}*")
    place = "role's policy"
    if "customer master key" in refusal.message or action.startswith("kms:"):
        action = action if action.startswith("kms:") else "kms:Decrypt"
        scope = f"the KMS key of {request.url}"
        if resource and ":kms:" in resource:
            scope = resource
        place += " and the key's policy"
    elif resource and action == ACTIONS["list"]:
        # A missing object is denied for s3:ListBucket, which would reveal that it is
        # missing.
        scope = resource
    kind = _KIND.match(action) or _KIND.match(ACTIONS[request.operation])
    assert kind is not None
    advice = (
        f"Allow {action} on {scope} in the {place} (`s3-sync check` prints whose). Look for a Deny "
        "in the policies of the bucket and the VPC endpoint and in SCPs; if it never worked, also "
        "for a typo in AWS_BUCKET: the bucket may belong to another account."
    )
    said = f"S3 denied {action} for {request.url}: {said}"
    return f"access_denied_{kind[1].lower()}", said, advice, Permission(action, scope)
