"""
Translates error responses of S3 into reasons, messages and advice.
"""

from __future__ import annotations

import re
from html import unescape
from typing import Literal, NamedTuple, get_args

from s3_sync.reasons import ADVICE, concerns
from s3_sync.s3.wire import Answer
from sidecar_runtime.errors import SidecarError

Operation = Literal["list", "get", "pointer", "manifest", "bundle", "put", "delete"]

ACTIONS: dict[Operation, str] = {
    **dict.fromkeys(get_args(Operation), "s3:GetObject"),
    "list": "s3:ListBucket",
    "put": "s3:PutObject",
    "delete": "s3:DeleteObject",
}

# The kinds of denied actions. A different policy statement grants each, and often another team.
_KIND = re.compile(r"s3:(list|get|put|delete)|(kms):", re.IGNORECASE)

# Codes after which the credentials are fetched again once: they were rotated or have expired.
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken")
STALE_CREDENTIALS = {
    **dict.fromkeys(_EXPIRED, "credentials_expired"),
    "InvalidAccessKeyId": "credentials_invalid",
}
# Codes and statuses with a reason of their own.
_CODES = {
    **STALE_CREDENTIALS,
    "RequestTimeTooSkewed": "clock_skew",
    "SignatureDoesNotMatch": "credentials_invalid",
    "InvalidObjectState": "object_archived",
    "RequestTimeout": "server_error",
}
_STATUSES = {404: "bucket_not_found", 408: "server_error", 429: "throttled", 503: "throttled"}

_NO_BUCKET = ("NoSuchBucket", "NoSuchAccessPoint")
_DENIED = re.compile(r"is not authorized to perform: (\S+)(?: on resource: \"?([^\"\s]+)\"?)?")
# The region becomes part of a host name and a header.
REGION = re.compile(r"[a-z0-9-]{1,32}")
_USER = re.compile(r"User: (arn:\S+)")
# Region prefix, partition, and domain of the endpoints; all other public regions are in "aws".
# https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/partitions.html
PARTITIONS = (
    ("cn-", "aws-cn", "amazonaws.com.cn"),
    ("us-gov-", "aws-us-gov", "amazonaws.com"),
    ("eusc-", "aws-eusc", "amazonaws.eu"),
)


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
        is_list, bucket = self.operation == "list", self.bucket
        if bucket.startswith("arn:"):
            return bucket if is_list else f"{bucket}/object/{key}"
        partition = next((p for start, p, _ in PARTITIONS if self.region.startswith(start)), "aws")
        bucket = f"arn:{partition}:s3:::{bucket}"
        return bucket if is_list else f"{bucket}/{key}"


class Refusal(NamedTuple):
    """
    The error document: code and message as S3 sent them; empty if S3 sent none.
    """

    code: str
    message: str
    region: str


class Permission(NamedTuple):
    """
    A required IAM action, and its resource.
    """

    action: str
    arn: str


class S3Error(SidecarError):
    """
    S3 refused or failed a request.

    Args:
        permission: The missing permission, if that is the cause.
    """

    def __init__(
        self, reason: str, message: str, advice: str = "", permission: Permission | None = None
    ) -> None:
        super().__init__(reason, message, advice or ADVICE.get(reason, ""))
        self.permission = permission


class SourceError(S3Error):
    """
    The source fails as a whole: the cycle ends.
    """


class ObjectError(S3Error):
    """
    One object fails; other objects are still tried.
    """


class ObjectMoved(Exception):
    """
    The object was changed or deleted since it was listed; the next cycle handles it.
    """


def read_refusal(answer: Answer) -> Refusal:
    """
    Read the error document, in any order and namespace; never fails.
    """
    text = answer.body[:65536].decode(errors="replace")

    def find(tag: str) -> str:
        match = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        return unescape(match[1]).strip() if match else ""

    region = answer.headers.get("x-amz-bucket-region", "") or find("Region")
    return Refusal(find("Code"), find("Message"), region if REGION.fullmatch(region) else "")


def is_denied(answer: Answer, refusal: Refusal) -> bool:
    """
    Whether S3 says that a permission is missing, so that the error should include the identity.
    """
    return answer.status == 403 and refusal.code.startswith("AccessDenied")


def explain(
    answer: Answer, refusal: Refusal, request: Request, identity: str | None
) -> S3Error | ObjectMoved:
    """
    Return the error for a response that is not a success; it quotes S3, which knows best.

    Args:
        identity: The caller according to STS, or the access key that was refused.
    """
    status, code, operation = answer.status, refusal.code, request.operation
    said = f"{status} {code} {refusal.message}".strip()
    if is_denied(answer, refusal):
        return _explain_denied(refusal, request, identity, said)
    is_gone = status in (404, 412) or (status == 416 and operation != "bundle")
    if is_gone and operation != "list" and not code.startswith(_NO_BUCKET):
        return ObjectMoved()
    reason = _reason_of(status, code, operation)
    by = "S3"
    if not code:  # S3 sends one with each list and GET
        kind = answer.headers.get("content-type", "no content type").partition(";")[0]
        by = f"{answer.headers.get('server') or 'a server without a name'} ({kind})"
    if place := answer.headers.get("location"):
        said += f", redirecting to {place!r}"
    if identity:
        said += f", for {identity}"
    return _kind_of(request, reason)(reason, f"{by} answered {request.url} with {said}")


def _reason_of(status: int, code: str, operation: Operation) -> str:
    """
    Return the reason for a response of S3 that is neither a success nor a denial.
    """
    if code in _CODES:
        return _CODES[code]
    if code.startswith("KMS."):
        return "kms_key_unusable"
    if not code and status == 403:  # only a code is S3's verdict
        return "answer_foreign"
    if status == 416 and operation == "bundle":
        return "bundle_corrupt"
    if status in _STATUSES and (code or status == 404):
        return _STATUSES[status]
    if 300 <= status < 400:
        return "redirect_refused"
    return "server_error" if status >= 500 or status in _STATUSES else "client_error"


def _kind_of(request: Request, reason: str) -> type[S3Error]:
    """
    A failed listing is a failure of the source; a failed object may be the only one.
    """
    is_source = request.operation == "list" or concerns(reason) == "cycle"
    return SourceError if is_source else ObjectError


def _explain_denied(refusal: Refusal, request: Request, identity: str | None, said: str) -> S3Error:
    denied, user = _DENIED.search(refusal.message), _USER.search(refusal.message)
    usual = ACTIONS[request.operation]
    action, resource = denied.groups() if denied else (usual, None)
    arn, scope, place = request.arn(request.key), request.arn(f"{request.prefix}*"), "role's policy"
    if "customer master key" in refusal.message or action.startswith("kms:"):
        action = action if action.startswith("kms:") else "kms:Decrypt"
        place += " and the key's policy"
        is_named = resource is not None and ":kms:" in resource
        arn = scope = str(resource) if is_named else f"the KMS key of {request.url}"
    elif resource and action == ACTIONS["list"]:
        # A missing object is denied for s3:ListBucket, which would reveal that it is missing.
        arn = scope = resource
    who = (user and user[1]) or identity or "an unknown identity (STS did not report it)"
    kind = _KIND.match(action) or _KIND.match(usual)
    assert kind is not None
    reason = f"access_denied_{(kind[1] or kind[2]).lower()}"
    return _kind_of(request, reason)(
        reason,
        f"{who} is not allowed to perform {action} on {arn}, for {request.url} ({said})",
        f"Allow {action} on {scope} in the {place}. Also check the bucket policy, the VPC endpoint "
        "policy and SCPs for a Deny, and AWS_BUCKET for a typo: the bucket may belong to another "
        "account.",
        Permission(action, scope),
    )
