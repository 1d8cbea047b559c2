"""
The program of the short-lived child that asks botocore: ``python -m
sidecar_runtime.aws.chain``, or its :func:`main` in a fork.

botocore implements the credential chain, its order and its error texts as users know
them: environment, profiles, SSO, IRSA, Pod Identity, IMDS, CA bundles, proxies,
configured endpoints. It also costs 10 MiB, and minutes if a metadata or token service
does not answer. It therefore runs in a process that the daemon can kill. It reads one
question from standard input and answers with lines on standard output, each of them a
JSON object (a secret in a pipe, never in an argument, the environment or a file); if it
fails, the last one is ``{"error": {"reason", "message", "advice"}}``:

- ``credentials``: ``{"region", "endpoint_url", …}``, before any service is asked; then
  ``{"credentials": {…} | null}``;
- ``anonymous``: the first of them;
- ``whoami``: ``{"arn": …}`` from STS.
"""

import json
import os
import re
import resource
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any, NoReturn

import botocore.session
from botocore import exceptions
from botocore.config import Config
from botocore.configprovider import ConfiguredEndpointProvider
from botocore.parsers import ResponseParserError

from sidecar_runtime import proxies

# botocore keeps an answer without end, and would take the memory of the container.
MEMORY_BYTES = 128 << 20

_DENIED = {
    "AccessDenied",
    "AccessDeniedException",
    "InvalidIdentityToken",
    "ValidationError",
}
# From the Pod Identity agent; botocore has its status only in a text. 408 and 429 may
# pass.
_AGENT_REFUSED = re.compile(r"Received non 200 response 4(?!08|29)\d\d ")
_REASONS = {
    exceptions.ConfigNotFound: "credentials_missing",
    exceptions.NoCredentialsError: "credentials_missing",
    exceptions.PartialCredentialsError: "credentials_missing",
    exceptions.ProfileNotFound: "credentials_missing",
    exceptions.SSLError: "tls_failed",
    exceptions.SSOError: "credentials_expired",
    # what botocore just got has ended already
    RuntimeError: "credentials_expired",
}
_CONNECTING = (
    exceptions.ConnectionError,
    exceptions.HTTPClientError,
    ResponseParserError,
)
# Their reasons have the right advice.
_TOLD = (exceptions.ClientError, exceptions.CredentialRetrievalError, *_REASONS)


def open_session(profile: str = "") -> botocore.session.Session:
    """
    Return a session that reads the environment as the suite does; this changes the
    environment.

    botocore reads only AWS_DEFAULT_REGION; every newer SDK reads AWS_REGION, which the
    EKS webhook sets. It asks even the node's metadata service through a proxy.
    """
    region = os.environ.get("AWS_REGION")
    if region:
        os.environ["AWS_DEFAULT_REGION"] = region
    os.environ.update(proxies.for_others(os.environ))
    return botocore.session.Session(profile=profile or None)


def configuration(session: botocore.session.Session) -> dict[str, Any]:
    """
    Return the configuration of the S3 client that botocore would build, without asking
    any service for credentials.
    """
    profile = session.get_scoped_config()
    s3 = profile.get("s3") or {}
    endpoint = ConfiguredEndpointProvider(session.full_config, profile, "s3")
    is_ignored = session.get_config_variable("ignore_configured_endpoint_urls")
    return {
        "region": session.get_config_variable("region"),
        "endpoint_url": None if is_ignored else endpoint.provide(),
        # As in botocore's endpoint code; REQUESTS_CA_BUNDLE is not part of its
        # configuration.
        "ca_bundle": session.get_config_variable("ca_bundle")
        or os.environ.get("REQUESTS_CA_BUNDLE"),
        "addressing_style": s3.get("addressing_style"),
        "use_fips": bool(session.get_config_variable("use_fips_endpoint")),
        "use_dualstack": bool(
            session.get_config_variable("use_dualstack_endpoint")
            or s3.get("use_dualstack_endpoint") == "true"
        ),
    }


def _credentials(session: botocore.session.Session) -> dict[str, Any] | None:
    found = session.get_credentials()
    if found is None:
        return None
    frozen = found.get_frozen_credentials()
    # Private, but the only source of the expiry; absent on credentials that do not
    # expire.
    expiry: datetime | None = getattr(found, "_expiry_time", None)
    return {
        "access_key": frozen.access_key,
        "secret_key": frozen.secret_key,
        "token": frozen.token,
        "expires_at": expiry.timestamp() if expiry else None,
        "method": found.method,
    }


def whoami(session: botocore.session.Session) -> dict[str, Any]:
    """
    Ask STS for the caller identity, once and with a short timeout.
    """
    sts: Any = session.create_client(
        "sts",
        region_name=session.get_config_variable("region") or "us-east-1",
        config=Config(
            connect_timeout=3, read_timeout=3, retries={"total_max_attempts": 1}
        ),
    )
    return {"arn": sts.get_caller_identity()["Arn"]}


def classify(error: Exception) -> str:
    """
    Return the sidecar's reason for a botocore error.
    """
    if shows_a_header(error):
        return "credentials_invalid"
    if isinstance(error, exceptions.ClientError):
        code = error.response.get("Error", {}).get("Code", "")
        if code in _DENIED:
            return "credentials_denied"
        return "credentials_expired" if "Expired" in code else "credentials_unavailable"
    if _AGENT_REFUSED.search(str(error)):
        return "credentials_denied"
    return next(
        (reason for kind, reason in _REASONS.items() if isinstance(error, kind)),
        "credentials_unavailable",
    )


def remedy(error: Exception) -> str:
    """
    Return what to do where the error itself tells what was tried; else the reason's own
    advice is right, and this is empty.
    """
    if isinstance(error, exceptions.ProfileNotFound):
        return "Correct AWS_PROFILE, or mount the file that has this profile."
    facts = getattr(error, "kwargs", {})
    if facts.get("provider") == "custom-process":
        return "Run the program that credential_process names in this container."
    if isinstance(error, _TOLD):
        return ""
    # The URL of an endpoint or a proxy is only parsed as it connects.
    is_of_url = isinstance(facts.get("error"), ValueError)
    if isinstance(error, _CONNECTING) and not is_of_url:
        return (
            "Check the network path to that address, and AWS_REGION. AWS_ENDPOINT_URL holds for "
            "STS, too: if it is a store's, set AWS_ENDPOINT_URL_S3 instead."
        )
    if isinstance(error, OSError):
        return "Mount that file where its variable says, readable for this container's user."
    # Before it asks, botocore raises nearly anything for a value that it cannot use.
    return (
        "Correct the value that the error quotes, in its variable or the AWS profile: no service "
        "was asked."
    )


def shows_a_header(error: Exception) -> bool:
    """
    Whether credentials are no valid header, and the error text quotes them.
    """
    return "Invalid header value" in str(error)


def shown(error: Exception) -> str:
    """
    Return the error text, but not what may be a secret: http.client quotes an invalid
    header, and botocore, from the second line on, an answer that it cannot read.
    """
    if shows_a_header(error):
        return "the credentials contain a line break or a control character"
    if isinstance(error, ResponseParserError):
        return str(error).partition("\n")[0]
    return str(error) or type(error).__name__


def answers(question: str) -> Iterator[dict[str, Any]]:
    """
    Yield the parts of the answer to a question; an error of botocore is one, too.
    """
    try:
        session = open_session()
        yield whoami(session) if question == "whoami" else configuration(session)
        if question == "credentials":
            yield {"credentials": _credentials(session)}
    except Exception as error:  # noqa: BLE001 - also those of the libraries that it uses
        yield {
            "error": {
                "reason": classify(error),
                "message": shown(error),
                "advice": remedy(error),
            }
        }


def main() -> NoReturn:
    """
    Answer the question on standard output, each part as soon as it is known.
    """
    question = os.read(0, 64)
    if question:
        with suppress(ValueError):  # the limit is lower already
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
        for part in answers(question.decode()):
            os.write(1, json.dumps(part).encode() + b"\n")
    os._exit(0)  # the interpreter's own end takes 13 ms


if __name__ == "__main__":
    main()
