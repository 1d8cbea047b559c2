"""
Moto with IAM: it checks signatures and the policies of users.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.support.aws.servers import ProgramServer


class MotoWithIam(ProgramServer):
    """
    `moto_server` as a separate process, because its IAM switch applies to a whole process.

    It evaluates actions and resources; conditions other than StringEquals count as met.
    """

    name = "moto with IAM"

    def command(self) -> list[str]:
        program = Path(sys.executable).parent / "moto_server"
        return [str(program), "--host=127.0.0.1", f"--port={self.port}"]

    def aws(self, service: str) -> Any:
        """
        Return a boto3 client for a service, with all permissions until IAM is enforced.
        """
        return boto3.client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(proxies={}, s3={"addressing_style": "path"}),
        )

    def user_with(self, *policies: dict[str, Any]) -> dict[str, str]:
        """
        Create a user with exactly these policies.

        Returns:
            The variables with which an AWS tool acts as that user.
        """
        iam = self.aws("iam")
        name = f"user-{len(iam.list_users()['Users'])}"
        iam.create_user(UserName=name)
        for number, policy in enumerate(policies):
            iam.put_user_policy(
                UserName=name, PolicyName=f"p{number}", PolicyDocument=json.dumps(policy)
            )
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return {
            **self.environment(),
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }

    def enforce(self) -> None:
        """
        Check the IAM policies of every request from now on.
        """
        request = urllib.request.Request(
            f"{self.endpoint}/moto-api/reset-auth",
            data=b"0",
            method="POST",
            headers={"Content-Type": "text/plain"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(request, timeout=10).close()
