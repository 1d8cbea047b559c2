"""
Maps the errors of boto3 to the reasons of the daemon.
"""

from __future__ import annotations

from botocore import exceptions

from s3_sync.s3.wire import WireError
from sidecar_runtime.aws.chain import classify, shown, shows_a_header
from sidecar_runtime.aws.credentials import CredentialsError
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.settings import without_password


def unreachable(error: exceptions.BotoCoreError) -> SidecarError:
    """
    Return the error of a request that received no response.
    """
    reason = reason_of(error)
    if reason.startswith("credentials_"):
        return CredentialsError(reason, said(error))
    return WireError(reason, said(error))


def said(error: Exception) -> str:
    """
    Return the error text, without the secrets that botocore quotes.
    """
    return without_password(shown(error))


def reason_of(error: Exception) -> str:
    """
    Return the reason that the daemon has for the same failure.
    """
    match error:
        case _ if shows_a_header(error):  # an HTTPClientError, although nothing was sent
            return classify(error)
        case exceptions.ProxyConnectionError():
            return "proxy_refused"
        case exceptions.ConnectTimeoutError() | exceptions.ReadTimeoutError():
            return "request_timeout"
        case exceptions.EndpointConnectionError():
            # botocore keeps the cause but does not show it.
            cause = str(error.kwargs.get("error"))
            return "name_unresolved" if "resolve" in cause else "endpoint_unreachable"
        case exceptions.HTTPClientError() | exceptions.IncompleteReadError():
            return "connection_lost"
        case _:
            return classify(error)


def status_of(error: exceptions.ClientError) -> int:
    """
    Return the status of the response; 0 if there was none.
    """
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code_of(error: exceptions.ClientError) -> str:
    """
    Return the error code of S3; empty if the response does not come from S3.

    Without a code, botocore takes the status; the response to a HEAD never has one.
    """
    code = str(error.response.get("Error", {}).get("Code", ""))
    if error.operation_name == "HeadObject":
        return "AccessDenied" if code == "403" else code
    return "" if code.isdigit() else code
