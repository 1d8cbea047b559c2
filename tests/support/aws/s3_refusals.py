"""
S3's refusals: error documents, and the check that a known identity signed a request.
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.support.http.loopback import Answer, Request


@dataclass(frozen=True)
class Identity:
    """
    A key pair that the server knows.

    Args:
        token: the session token that requests must contain; None = long-lived keys.
        refusal: the error code for its requests, once it is no longer valid.
    """

    secret_key: str
    token: str | None = None
    refusal: str | None = None


def error_answer(
    status: int,
    code: str,
    message: str = "",
    *,
    headers: Mapping[str, str] | None = None,
    **elements: str,
) -> Answer:
    """
    Return an S3 error document as an answer.
    """
    inner = "".join(
        element(name, text)
        for name, text in {
            "Code": code,
            "Message": message or code,
            **elements,
            "RequestId": "TESTREQUEST0001",
            "HostId": "test-host",
        }.items()
    )
    document = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'
    return Answer(
        status,
        {"Content-Type": "application/xml", "x-amz-request-id": "TESTREQUEST0001"}
        | dict(headers or {}),
        document.encode(),
    )


def signed_region(request: Request) -> str | None:
    """
    Return the region in the credential scope of a request; None = not signed.
    """
    found = re.search(
        r"Credential=[^/]+/\d{8}/([^/]+)/", request.headers.get("authorization", "")
    )
    return found[1] if found else None


def signed_by(request: Request) -> str | None:
    """
    Return the access key that signed a request; None = not signed.
    """
    found = re.search(r"Credential=([^/]+)/", request.headers.get("authorization", ""))
    return found[1] if found else None


def signature_problem(
    request: Request, identities: Mapping[str, Identity]
) -> Answer | None:
    """
    Check the identity and the signature of a request.

    Returns:
        The refusal of S3, or None if the request is valid or no identities are known.
    """
    if not identities:
        return None
    identity = identities.get(signed_by(request) or "")
    if identity is None:
        return error_answer(
            403, "InvalidAccessKeyId", "The key Id does not exist in our records."
        )
    if identity.refusal:
        return error_answer(
            400 if identity.refusal == "ExpiredToken" else 403,
            identity.refusal,
            "The provided token has expired.",
        )
    if request.headers.get("x-amz-security-token") != identity.token:
        return error_answer(400, "InvalidToken", "The provided token is malformed.")
    if _signature(request, identity.secret_key) not in request.headers["authorization"]:
        return error_answer(
            403, "SignatureDoesNotMatch", "The signature does not match."
        )
    return None


def _signature(request: Request, secret_key: str) -> str:
    """
    Compute Signature Version 4 of a received request with botocore, from what the
    request means: S3 decodes the path and the query, and encodes them in one way.
    """
    (names,) = re.findall(r"SignedHeaders=([^,\s]+)", request.headers["authorization"])
    path = quote(unquote(request.raw_path, "latin-1"), safe="/-_.~", encoding="latin-1")
    asked = AWSRequest(
        request.method,
        f"http://{request.headers['host']}{path}",
        {name: request.headers[name] for name in names.split(";")},
        params=request.query,
    )
    asked.context["timestamp"] = request.headers["x-amz-date"]
    auth = S3SigV4Auth(Credentials("", secret_key), "s3", signed_region(request) or "")
    return auth.signature(
        auth.string_to_sign(asked, auth.canonical_request(asked)), asked
    )


def signed(secret_key: str, scope: str, text: str) -> str:
    """
    Return the signature of a text with the key of a scope.
    """
    key = b"AWS4" + secret_key.encode()
    for part in [*scope.split("/"), text]:
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


def element(name: str, text: str) -> str:
    text = escape(text, {'"': "&quot;"})
    text = re.sub(r"[\x00-\x1f]", lambda found: f"&#x{ord(found[0]):X};", text)
    return f"<{name}>{text}</{name}>"
