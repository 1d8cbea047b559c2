"""
S3's refusals: error documents, and the check that a known identity signed a request.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote
from xml.sax.saxutils import escape

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
    own = {"Content-Type": "application/xml", "x-amz-request-id": "TESTREQUEST0001"}
    return Answer(status, own | dict(headers or {}), document.encode())


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
    if identity.refusal is not None:
        status = 400 if identity.refusal == "ExpiredToken" else 403
        return error_answer(status, identity.refusal, "The provided token has expired.")
    if request.headers.get("x-amz-security-token") != identity.token:
        return error_answer(400, "InvalidToken", "The provided token is malformed.")
    if _signature(request, identity.secret_key) not in request.headers["authorization"]:
        return error_answer(
            403, "SignatureDoesNotMatch", "The signature does not match."
        )
    return None


def _signature(request: Request, secret_key: str) -> str:
    """
    Compute Signature Version 4 of a received request, as in the AWS General Reference.
    """
    authorization = request.headers["authorization"]
    scope = re.findall(r"Credential=[^/]+/([^,\s]+)", authorization)[0]
    signed_headers = re.findall(r"SignedHeaders=([^,\s]+)", authorization)[0]
    query = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in parse_qsl(request.raw_query, keep_blank_values=True)
    )
    canonical = "\n".join(
        [
            request.method,
            quote(
                unquote(request.raw_path, "latin-1"), safe="/-_.~", encoding="latin-1"
            ),
            "&".join(f"{name}={value}" for name, value in query),
            *(
                f"{name}:{request.headers[name].strip()}"
                for name in signed_headers.split(";")
            ),
            "",
            signed_headers,
            request.headers["x-amz-content-sha256"],
        ]
    )
    to_sign = "\n".join(
        [
            "AWS4-HMAC-SHA256",
            request.headers["x-amz-date"],
            scope,
            hashlib.sha256(canonical.encode()).hexdigest(),
        ]
    )
    return signed(secret_key, scope, to_sign)


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
