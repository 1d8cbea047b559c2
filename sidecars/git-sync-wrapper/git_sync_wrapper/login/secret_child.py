"""
The short-lived child that reads a secret from AWS Secrets Manager.

Its arguments are name or ARN, stage, and region (empty: the session's). It answers on standard
output: ``{"text": …}``, or AWS's error as ``{"refused": {"code", "message"}}``, or, without AWS
credentials, the answer of :mod:`sidecar_runtime.aws.chain`.
"""

from __future__ import annotations

import sys
from typing import Any

import boto3
import botocore.exceptions
import botocore.session
from botocore.config import Config

from sidecar_runtime.aws.chain import answer

CONFIG = Config(connect_timeout=4, read_timeout=6, retries={"total_max_attempts": 2})


def read_secret(session: botocore.session.Session) -> dict[str, Any]:
    """
    Return the value of the secret that the arguments name.
    """
    name, stage, region = sys.argv[1:4]
    client = boto3.Session(botocore_session=session).client(
        "secretsmanager", region_name=region or None, config=CONFIG
    )
    try:
        found = client.get_secret_value(SecretId=name, VersionStage=stage)
    except botocore.exceptions.ClientError as error:
        said = error.response.get("Error", {})
        return {"refused": {"code": said.get("Code", ""), "message": said.get("Message", "")}}
    if "SecretString" in found:
        return {"text": found["SecretString"]}
    return {"text": found["SecretBinary"].decode("utf-8", "surrogateescape")}


if __name__ == "__main__":
    answer(read_secret)
