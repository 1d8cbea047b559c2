"""
Translates error responses of S3 into reasons, messages and advice.
"""

from __future__ import annotations

import re
from html import unescape
from typing import Literal, NamedTuple

from s3_sync.s3.wire import ADVICE, Answer
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
    def is_released(self) -> bool:
        """
        Whether the object belongs to a release.
        """
        return self.operation in ("pointer", "manifest", "bundle")

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
    said = f"{answer.status} {refusal.code} {refusal.message}".strip()
    is_list = request.operation == "list"
    # A failed listing concerns the whole source; a failed object may be the only one.
    error = SourceError if is_list else ObjectError
    if answer.status in (403, 429, 503) and not refusal.code:  # S3 sends a code with each GET
        return _explain_stranger(answer, request)
    if is_denied(answer, refusal):
        return _explain_denied(refusal, request, identity, said)
    if refusal.code in STALE_CREDENTIALS:
        return SourceError(
            STALE_CREDENTIALS[refusal.code],
            f"S3 rejected {identity} ({said})",
            "Renew the credentials at their source.",
        )
    if not is_list and (refusal.code == "NoSuchKey" or answer.status == 412):
        return ObjectMoved()
    repair = ": publish the content again with --repair." if request.is_released else "."
    match refusal.code:
        case "RequestTimeTooSkewed":
            return SourceError(
                "clock_skew",
                f"this machine's clock differs from S3's by more than S3 allows ({said})",
                "Check the time synchronization of the node.",
            )
        case "SignatureDoesNotMatch":
            return error(
                "credentials_invalid",
                f"S3 rejected the signature of the request for {request.url} ({said})",
                "Check that the secret key belongs to the access key, and that no proxy alters "
                "requests.",
            )
        case "InvalidObjectState":
            return SealedError(
                "object_archived",
                f"{request.url} is archived ({said})",
                f"Restore it, or replace or exclude it{repair}",
            )
        case code if code.startswith("KMS."):
            return SealedError(
                "kms_key_unusable",
                f"the KMS key of {request.url} cannot be used ({said})",
                f"Enable the key, or encrypt the object with another key{repair}",
            )
        case code if "SecondLevelDomain" in code or "VirtualHost" in code:
            return error(
                "client_error",
                f"the store refuses addresses with the bucket in the path ({said})",
                "Set addressing_style = virtual in the section s3 of the AWS profile "
                "(AWS_CONFIG_FILE).",
            )
    is_no_bucket = refusal.code in ("NoSuchBucket", "NoSuchAccessPoint")
    match answer.status:
        case 404 if is_no_bucket or is_list:
            return SourceError(
                "bucket_not_found",
                f"the endpoint does not know the bucket {request.bucket} ({said})",
                "Check AWS_BUCKET for a typo, the account of the credentials, and the endpoint, "
                "which must not contain the bucket.",
            )
        case 416 if request.operation == "bundle":
            return ObjectError(
                "bundle_corrupt",
                f"{request.url} is shorter than its manifest states ({said})",
                "Publish the release again. The published files stay.",
            )
        case 404 | 416 if not is_list:
            return ObjectMoved()
        case 429 | 503:
            return error(
                "throttled",
                f"S3 throttled the request for {request.url} ({said})",
                "This resolves itself. For a large fleet, raise INTERVAL. If it is always the same "
                "object, the store cannot read that object.",
            )
        case status if status >= 500 or status == 408 or refusal.code == "RequestTimeout":
            said = f"S3 failed to serve {request.url} ({said})"
            return ObjectError("server_error", said, ADVICE["server_error"])
        case status if 300 <= status < 400:
            place = answer.headers.get("location", "nowhere")
            return error(
                "redirect_refused",
                f"the endpoint redirects {request.url} to {place!r}; credentials are never sent to "
                f"another host ({said})",
                "Check the endpoint and AWS_REGION: the bucket's region is "
                f"{refusal.region or 'not reported'}. Check for a proxy or captive portal.",
            )
    said = f"S3 rejected the request for {request.url} ({said})"
    return error("client_error", said, ADVICE["client_error"])


def _explain_stranger(answer: Answer, request: Request) -> SidecarError:
    """
    Return the error for a refusal that is not S3's: only S3's own codes are S3's verdict.
    """
    error = SourceError if request.operation == "list" else ObjectError
    if request.proxy and answer.status == 403:
        said = f"the proxy {request.proxy} refused the request for {request.url} (403)"
        return error("proxy_refused", said, ADVICE["proxy_refused"])
    kind = answer.headers.get("content-type", "no content type").partition(";")[0]
    by = request.proxy or answer.headers.get("server", "") or "an unnamed server"
    return error(
        "answer_foreign" if answer.status == 403 else "server_error",
        f"{request.url} was answered with {answer.status} by something other than S3: {by}, {kind}",
        "Check what is in front of the endpoint: a firewall, an ingress, a proxy or a captive "
        "portal. It is retried.",
    )


def _explain_denied(
    refusal: Refusal, request: Request, identity: str | None, said: str
) -> SidecarError:
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
    error = SourceError if request.operation == "list" else ObjectError
    return error(
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
