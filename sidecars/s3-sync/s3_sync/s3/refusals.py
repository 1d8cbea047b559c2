"""
Translates error responses of S3 into reasons, messages and advice.
"""

from __future__ import annotations

import re
from html import unescape
from typing import Literal, NamedTuple

from s3_sync.reasons import ADVICE, concerns
from s3_sync.s3.wire import Answer
from sidecar_runtime.errors import SidecarError

Operation = Literal["list", "get", "pointer", "manifest", "bundle", "put", "delete"]

ACTIONS: dict[Operation, str] = {
    "list": "s3:ListBucket",
    "get": "s3:GetObject",
    "pointer": "s3:GetObject",
    "manifest": "s3:GetObject",
    "bundle": "s3:GetObject",
    "put": "s3:PutObject",
    "delete": "s3:DeleteObject",
}

# The reason for a denied action, by the action's prefix. A different policy statement grants each,
# and often a different team.
DENIALS = {
    "s3:List": "access_denied_list",
    "s3:Get": "access_denied_get",
    "s3:Put": "access_denied_put",
    "s3:Delete": "access_denied_delete",
    "kms:": "access_denied_kms",
}

# Codes after which the credentials are fetched again once: they were rotated or have expired.
STALE_CREDENTIALS = {
    "ExpiredToken": "credentials_expired",
    "ExpiredTokenException": "credentials_expired",
    "TokenRefreshRequired": "credentials_expired",
    "InvalidToken": "credentials_expired",
    "InvalidAccessKeyId": "credentials_invalid",
}

_NO_BUCKET = ("NoSuchBucket", "NoSuchAccessPoint")
_DENIED = re.compile(r"is not authorized to perform: (\S+)(?: on resource: \"?([^\"\s]+)\"?)?")
# The region becomes part of a host name and a header.
REGION = re.compile(r"[a-z0-9-]{1,32}")
_USER = re.compile(r"User: (arn:\S+)")
# Region prefix, partition, and domain of the endpoints; all other regions are in "aws".
# https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/partitions.html
PARTITIONS = (
    ("cn-", "aws-cn", "amazonaws.com.cn"),
    ("us-gov-", "aws-us-gov", "amazonaws.com"),
    ("us-iso-", "aws-iso", "c2s.ic.gov"),
    ("us-isob-", "aws-iso-b", "sc2s.sgov.gov"),
    ("eu-isoe-", "aws-iso-e", "cloud.adc-e.uk"),
    ("us-isof-", "aws-iso-f", "csp.hci.ic.gov"),
    ("eusc-", "aws-eusc", "amazonaws.eu"),
)


class Request(NamedTuple):
    """
    A request, as the error describes it.

    Args:
        bucket: The bucket's name, or the ARN of an access point.
        key: The key of the object, or the prefix of the listing.
        prefix: The prefix of the synced folder.
        proxy: The proxy that forwards the request, without its login; empty if there is none, or
            if it only opens a tunnel.
    """

    operation: Operation
    bucket: str
    key: str
    prefix: str
    region: str
    proxy: str = ""

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def arn(self) -> str:
        """
        The requested resource.
        """
        return self._arn_of(self.key)

    @property
    def folder_arn(self) -> str:
        """
        The resource that the IAM statement should name: the whole folder.
        """
        return self._arn_of(f"{self.prefix}*")

    def _arn_of(self, key: str) -> str:
        if self.bucket.startswith("arn:"):
            return self.bucket if self.operation == "list" else f"{self.bucket}/object/{key}"
        partition = next((p for start, p, _ in PARTITIONS if self.region.startswith(start)), "aws")
        bucket = f"arn:{partition}:s3:::{self.bucket}"
        return bucket if self.operation == "list" else f"{bucket}/{key}"


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
        super().__init__(reason, message, advice)
        self.permission = permission


class SourceError(S3Error):
    """
    The source fails as a whole: the cycle ends.
    """


class ObjectError(S3Error):
    """
    One object fails; other objects are still tried.
    """


class SealedError(ObjectError):
    """
    Nobody can read the object: it is archived, or its KMS key cannot be used.
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
    if not REGION.fullmatch(region):
        region = ""
    return Refusal(find("Code"), find("Message"), region)


def is_denied(answer: Answer, refusal: Refusal) -> bool:
    """
    Whether S3 says that a permission is missing, so that the error should include the identity.
    """
    return answer.status == 403 and refusal.code.startswith("AccessDenied")


def explain(
    answer: Answer, refusal: Refusal, request: Request, identity: str | None
) -> SidecarError | ObjectMoved:
    """
    Return the error for a response that is not a success.

    Args:
        identity: The caller according to STS, or the access key that was refused.
    """
    status, code = answer.status, refusal.code
    said = f"{status} {code} {refusal.message}".strip()
    if status in (403, 429, 503) and not code:  # S3 sends a code with each GET
        return _explain_stranger(answer, request)
    if is_denied(answer, refusal):
        return _explain_denied(refusal, request, identity, said)
    if code in STALE_CREDENTIALS:
        return _error(request, STALE_CREDENTIALS[code], f"S3 rejected {identity} ({said})")
    is_gone = status in (404, 412) or (status == 416 and request.operation != "bundle")
    if is_gone and request.operation != "list" and not code.startswith(_NO_BUCKET):
        return ObjectMoved()
    reason, what = _meaning(answer, refusal, request)
    return _error(request, reason, f"{what} ({said})")


def _meaning(answer: Answer, refusal: Refusal, request: Request) -> tuple[str, str]:
    """
    Return the reason for a response of S3 that is not a success, and the message.
    """
    url = request.url
    match refusal.code:
        case "RequestTimeTooSkewed":
            return "clock_skew", "this machine's clock differs from S3's by more than S3 allows"
        case "SignatureDoesNotMatch":
            return "credentials_invalid", f"S3 rejected the signature of the request for {url}"
        case "InvalidObjectState":
            return "object_archived", f"{url} is archived"
        case "RequestTimeout":
            return "server_error", f"S3 failed to serve {url}"
        case code if code.startswith("KMS."):
            return "kms_key_unusable", f"the KMS key of {url} cannot be used"
        case code if "SecondLevelDomain" in code or "VirtualHost" in code:
            return "client_error", (
                "the store refuses addresses with the bucket in the path: set addressing_style = "
                "virtual in the section s3 of the AWS profile (AWS_CONFIG_FILE)"
            )
    match answer.status:
        case 404:
            return "bucket_not_found", f"the endpoint does not know the bucket {request.bucket}"
        case 416 if request.operation == "bundle":
            return "bundle_corrupt", f"{url} is shorter than its manifest states"
        case 429 | 503:
            return "throttled", f"S3 throttled the request for {url}"
        case status if status >= 500 or status == 408:
            return "server_error", f"S3 failed to serve {url}"
        case status if 300 <= status < 400:
            place = answer.headers.get("location", "nowhere")
            return "redirect_refused", (
                f"the endpoint redirects {url} to {place!r}, region "
                f"{refusal.region or 'unknown'}; credentials are never sent to another host"
            )
    return "client_error", f"S3 rejected the request for {url}"


def _error(
    request: Request,
    reason: str,
    message: str,
    advice: str = "",
    permission: Permission | None = None,
) -> S3Error:
    """
    Return an error of the source if a listing failed; a failed object may be the only one.
    """
    kind: type[S3Error] = ObjectError
    if reason in ("object_archived", "kms_key_unusable"):
        kind = SealedError
    elif request.operation == "list" or concerns(reason) == "cycle":
        kind = SourceError
    return kind(reason, message, advice or ADVICE[reason], permission)


def _explain_stranger(answer: Answer, request: Request) -> S3Error:
    """
    Return the error for a refusal that is not S3's: only S3's own codes are S3's verdict.
    """
    if request.proxy and answer.status == 403:
        said = f"the proxy {request.proxy} refused the request for {request.url} (403)"
        return _error(request, "proxy_refused", said)
    kind = answer.headers.get("content-type", "no content type").partition(";")[0]
    by = request.proxy or answer.headers.get("server", "") or "an unnamed server"
    return _error(
        request,
        "answer_foreign" if answer.status == 403 else "server_error",
        f"{request.url} was answered with {answer.status} by something other than S3: {by}, {kind}",
        ADVICE["answer_foreign"],
    )


def _explain_denied(refusal: Refusal, request: Request, identity: str | None, said: str) -> S3Error:
    denied = _DENIED.search(refusal.message)
    user = _USER.search(refusal.message)
    action, arn, scope = ACTIONS[request.operation], request.arn, request.folder_arn
    place = "the role's policy"
    if denied:
        action = denied[1]
    if "customer master key" in refusal.message or action.startswith("kms:"):
        action = action if action.startswith("kms:") else "kms:Decrypt"
        place += " and the key's policy"
        named = denied[2] if denied and ":kms:" in (denied[2] or "") else None
        arn = scope = named or f"the KMS key of {request.url}"
    elif denied and denied[2] and action == ACTIONS["list"]:
        # A missing object is denied for s3:ListBucket, which would reveal that it is missing.
        arn = scope = denied[2]
    who = (user and user[1]) or identity or "an unknown identity (STS did not report it)"
    return _error(
        request,
        _denial_of(action) or _denial_of(ACTIONS[request.operation]),
        f"{who} is not allowed to perform {action} on {arn}, for {request.url} ({said})",
        f"Allow {action} on {scope} in {place}. Also check the bucket policy, the VPC endpoint "
        "policy and SCPs for a Deny, and AWS_BUCKET for a typo: the bucket may belong to another "
        "account.",
        Permission(action, scope),
    )


def _denial_of(action: str) -> str:
    """
    Return the reason for a denied action; empty for an action of another kind.
    """
    return next((reason for start, reason in DENIALS.items() if action.startswith(start)), "")
