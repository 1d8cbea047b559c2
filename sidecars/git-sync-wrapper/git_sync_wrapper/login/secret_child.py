"""
The short-lived child that reads a secret from AWS Secrets Manager.

Its arguments are name or ARN, stage, region (empty: the session's), and the seconds in which
Secrets Manager must answer. It answers on standard output: ``{"text": …}``, or as ``{"refused":
{"code", "message"}}`` the error of AWS, or botocore's if there is no region or no answer, or, if
the AWS credentials fail, the answer of :mod:`sidecar_runtime.aws.chain`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import boto3
import botocore.session
from botocore import exceptions
from botocore.config import Config

from sidecar_runtime.aws.chain import answer, resolve

CONFIG = Config(connect_timeout=4, read_timeout=6, retries={"total_max_attempts": 2})


def read_secret(session: botocore.session.Session) -> dict[str, Any]:
    """
    Return the value of the secret that the arguments name.
    """
    name, stage, region, seconds = sys.argv[1:5]
    try:
        client = boto3.Session(botocore_session=session).client(
            "secretsmanager", region_name=region or None, config=CONFIG
        )
    except exceptions.NoRegionError as error:
        return _refused("NoRegion", str(error))
    resolve(session)  # raises the errors of the credentials: the later ones are the secret's
    _give_up_after(float(seconds))
    try:
        found = client.get_secret_value(SecretId=name, VersionStage=stage)
    except exceptions.ClientError as error:
        said = error.response.get("Error", {})
        return _refused(said.get("Code", ""), said.get("Message", ""))
    except exceptions.SSLError:
        raise
    except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
        return _refused(type(error).__name__, str(error))
    if "SecretString" in found:
        return {"text": found["SecretString"]}
    return {"text": found["SecretBinary"].decode("utf-8", "surrogateescape")}


def _give_up_after(seconds: float) -> None:
    """
    End this process with an answer after this time, unless it ends earlier: botocore limits only
    each address and attempt.
    """

    def give_up(*_: object) -> None:
        json.dump(_refused("Timeout", f"no answer within {seconds:g} s"), sys.stdout)
        sys.stdout.flush()
        os._exit(0)

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _refused(code: str, message: str) -> dict[str, Any]:
    return {"refused": {"code": code, "message": message}}


if __name__ == "__main__":
    answer(read_secret)
