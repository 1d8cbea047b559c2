"""
The program of the short-lived child that asks botocore: ``python -m sidecar_runtime.aws.chain``.

botocore knows the chain, the order and the error texts that people know: environment, profiles,
SSO, IRSA, Pod Identity, IMDS, CA bundles, proxies, configured endpoints. It also costs 10 MiB
and, where a metadata or token service is silent, minutes. So it runs here, in a process that the
daemon can kill, and answers with one JSON object on standard output:

- ``chain``: ``{"credentials": {…} | null, "region", "endpoint_url", …}`` (a secret in a pipe, never
  in an argument, the environment or a file), or ``{"error": {"reason", "message"}}``;
- ``chain anonymous``: the same, and no credentials are looked for;
- ``chain whoami``: ``{"arn": …}`` from STS.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

import botocore.exceptions
import botocore.session
from botocore.config import Config
from botocore.configprovider import ConfiguredEndpointProvider
from botocore.httpsession import get_cert_path

# The parent kills us long before; this is for a parent that was killed itself.
LIFETIME_SECONDS = 90

_DENIED = {"AccessDenied", "AccessDeniedException", "InvalidIdentityToken", "ValidationError"}


def resolve(session: botocore.session.Session) -> dict[str, Any]:
    """
    Return credentials and configuration of the s3 client that botocore would build.
    """
    return {**configuration(session), "credentials": _credentials(session)}


def configuration(session: botocore.session.Session) -> dict[str, Any]:
    """
    Return the same without credentials: no service is asked for any.
    """
    s3 = session.get_scoped_config().get("s3") or {}
    is_dual_stack = session.get_config_variable("use_dualstack_endpoint")
    return {
        "credentials": None,
        "region": session.get_config_variable("region"),
        "endpoint_url": _endpoint_url(session),
        # As botocore's endpoints do, outside of its configuration.
        "ca_bundle": session.get_config_variable("ca_bundle")
        or os.environ.get("REQUESTS_CA_BUNDLE"),
        "ca_fallback": get_cert_path(True),
        "addressing_style": s3.get("addressing_style"),
        "use_fips": bool(session.get_config_variable("use_fips_endpoint")),
        "use_dualstack": bool(is_dual_stack or s3.get("use_dualstack_endpoint") == "true"),
    }


def _endpoint_url(session: botocore.session.Session) -> str | None:
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return None
    provider = ConfiguredEndpointProvider(
        full_config=session.full_config,
        scoped_config=session.get_scoped_config(),
        client_name="s3",
    )
    url: str | None = provider.provide()
    return url


def _credentials(session: botocore.session.Session) -> dict[str, Any] | None:
    found = session.get_credentials()
    if found is None:
        return None
    frozen = found.get_frozen_credentials()
    # Private, and the only place that knows; absent on credentials without an end.
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
    Ask STS who we are, once and briefly.
    """
    import boto3  # noqa: PLC0415 - half of what the usual answer costs, and rarely asked

    config = Config(connect_timeout=3, read_timeout=3, retries={"total_max_attempts": 1})
    region = session.get_config_variable("region") or "us-east-1"
    sts = boto3.Session(botocore_session=session).client("sts", region_name=region, config=config)
    return {"arn": sts.get_caller_identity()["Arn"]}


def classify(error: Exception) -> str:
    """
    Return our reason for an error of botocore.
    """
    match error:
        case _ if _shows_a_header(error):
            return "credentials_invalid"
        case botocore.exceptions.ClientError():
            code = error.response.get("Error", {}).get("Code", "")
            if code in _DENIED:
                return "credentials_denied"
            return "credentials_expired" if "Expired" in code else "credentials_unavailable"
        case (
            botocore.exceptions.ProfileNotFound()
            | botocore.exceptions.PartialCredentialsError()
            | botocore.exceptions.ConfigParseError()
            | botocore.exceptions.ConfigNotFound()
            | botocore.exceptions.NoCredentialsError()
        ):
            return "credentials_missing"
        case (
            botocore.exceptions.SSOTokenLoadError()
            | botocore.exceptions.UnauthorizedSSOTokenError()
        ):
            return "credentials_expired"
        case _:
            return "credentials_unavailable"


def _shows_a_header(error: Exception) -> bool:
    return "Invalid header value" in str(error)


def _shown(error: Exception) -> str:
    """
    Return what an error says; of a header that cannot be sent, http.client quotes the secret.
    """
    if _shows_a_header(error):
        return "the credentials that go to STS have a line break or a control character in them"
    return str(error)


def answer(ask: Callable[[botocore.session.Session], dict[str, Any]]) -> None:
    """
    Ask, and answer on standard output; botocore's refusals are answers too.
    """
    signal.alarm(LIFETIME_SECONDS)
    # botocore alone reads only AWS_DEFAULT_REGION; every newer SDK, and the EKS webhook, says
    # AWS_REGION.
    if region := os.environ.get("AWS_REGION"):
        os.environ["AWS_DEFAULT_REGION"] = region
    found: dict[str, Any]
    try:
        found = ask(botocore.session.Session())
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, OSError) as error:
        found = {"error": {"reason": classify(error), "message": _shown(error)}}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    answer({"whoami": whoami, "anonymous": configuration}.get("".join(sys.argv[1:]), resolve))
