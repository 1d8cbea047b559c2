"""
How the child classifies botocore's errors; `test_credentials.py` tests its answers.
"""

import pytest
from botocore import exceptions

from sidecar_runtime.aws.chain import classify
from sidecar_runtime.aws.credentials import ADVICE


def said_by_sts(code: str) -> exceptions.ClientError:
    return exceptions.ClientError({"Error": {"Code": code}}, "AssumeRoleWithWebIdentity")


def said_by_the_agent(status: int) -> exceptions.CredentialRetrievalError:
    said = f"Received non 200 response {status} from container metadata: no"
    return exceptions.CredentialRetrievalError(provider="container-role", error_msg=said)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (said_by_sts("AccessDenied"), "credentials_denied"),
        (said_by_sts("InvalidIdentityToken"), "credentials_denied"),
        (said_by_sts("ValidationError"), "credentials_denied"),
        (said_by_sts("ExpiredTokenException"), "credentials_expired"),
        (said_by_sts("InternalFailure"), "credentials_unavailable"),
        (exceptions.ClientError({}, "AssumeRole"), "credentials_unavailable"),
        (exceptions.ProfileNotFound(profile="x"), "credentials_missing"),
        (exceptions.ConfigNotFound(path="x"), "credentials_missing"),
        (exceptions.ConfigParseError(path="x", error="y"), "credentials_missing"),
        (exceptions.NoCredentialsError(), "credentials_missing"),
        (exceptions.PartialCredentialsError(provider="env", cred_var="x"), "credentials_missing"),
        (exceptions.SSOTokenLoadError(error_msg="x"), "credentials_expired"),
        (exceptions.UnauthorizedSSOTokenError(), "credentials_expired"),
        (
            exceptions.CredentialRetrievalError(provider="x", error_msg="y"),
            "credentials_unavailable",
        ),
        (said_by_the_agent(400), "credentials_denied"),
        (said_by_the_agent(403), "credentials_denied"),
        (said_by_the_agent(404), "credentials_denied"),
        (said_by_the_agent(408), "credentials_unavailable"),
        (said_by_the_agent(429), "credentials_unavailable"),
        (said_by_the_agent(500), "credentials_unavailable"),
        (exceptions.SSLError(endpoint_url="x", error=OSError("y")), "tls_failed"),
        (exceptions.EndpointConnectionError(endpoint_url="x"), "credentials_unavailable"),
        (exceptions.ConnectTimeoutError(endpoint_url="x"), "credentials_unavailable"),
        (FileNotFoundError(2, "no token file"), "credentials_unavailable"),
    ],
    ids=str,
)
def test_botocore_errors_have_a_reason_with_advice(error: Exception, reason: str) -> None:
    assert reason == classify(error)
    assert ADVICE[reason]
