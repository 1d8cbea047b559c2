"""
Fakes of the AWS credential services.

Each is a recording `LoopbackServer`, so the same faults can make it fail, hang or
disconnect. `issue` sets the credentials that it issues next.
"""

import json
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests import Texts
from tests.support.aws.s3_refusals import Identity, element, error_answer
from tests.support.http.loopback import Answer, LoopbackServer, Match, Request

ROLE_ARN = "arn:aws:iam::123456789012:role/airflow-dags"
IDENTITY_ARN = "arn:aws:sts::123456789012:assumed-role/airflow-dags/s3-sync"


@dataclass(frozen=True)
class SessionCredentials:
    """
    Temporary credentials with their expiry.
    """

    access_key: str
    secret_key: str
    token: str
    expires_at: datetime

    def identity(self, refusal: str | None = None) -> Identity:
        """
        Return the identity with which a `FakeS3` accepts them, or refuses them with
        this code.
        """
        return Identity(self.secret_key, self.token, refusal)


def session_credentials(number: int) -> SessionCredentials:
    """
    Return credentials that differ in every part from those of any other number.
    """
    return SessionCredentials(
        access_key=f"ASIATESTSESSION{number:05d}",
        secret_key=f"secret-of-session-{number:05d}",
        token=f"token-of-session-{number:05d}",
        expires_at=datetime.now(UTC) + timedelta(hours=1),
    )


class CredentialSource(LoopbackServer):
    """
    Base of the fakes that issue `credentials`.
    """

    def __init__(
        self,
        credentials: SessionCredentials | None = None,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(tls=tls)
        self.credentials = credentials or session_credentials(1)

    def issue(self, credentials: SessionCredentials) -> None:
        """
        Issue these credentials from now on.
        """
        self.credentials = credentials

    def _as_json(self) -> Texts:
        return {
            "AccessKeyId": self.credentials.access_key,
            "SecretAccessKey": self.credentials.secret_key,
            "Token": self.credentials.token,
            "Expiration": f"{self.credentials.expires_at:%Y-%m-%dT%H:%M:%SZ}",
        }


class FakeSts(CredentialSource):
    """
    STS: AssumeRole, AssumeRoleWithWebIdentity, GetCallerIdentity; for
    AWS_ENDPOINT_URL_STS.
    """

    def good_answer(self, request: Request) -> Answer:
        action = sts_action(request)
        if action in ("AssumeRole", "AssumeRoleWithWebIdentity"):
            keys = self._as_json()
            keys["SessionToken"] = keys.pop("Token")
            user = _elements({"Arn": IDENTITY_ARN, "AssumedRoleId": "AROATEST:s3-sync"})
            inner = f"<Credentials>{_elements(keys)}</Credentials>"
            return _sts_answer(
                action, f"{inner}<AssumedRoleUser>{user}</AssumedRoleUser>"
            )
        if action == "GetCallerIdentity":
            return _sts_answer(
                action,
                _elements(
                    {
                        "Arn": IDENTITY_ARN,
                        "UserId": "AROATEST:s3-sync",
                        "Account": "123456789012",
                    }
                ),
            )
        return error_answer(400, "InvalidAction", f"no action {action}")

    def environment(self, token_file: Path) -> Texts:
        """
        Return the variables that EKS injects into a pod with IRSA, for this server.
        """
        return {
            "AWS_ROLE_ARN": ROLE_ARN,
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(token_file),
            "AWS_ENDPOINT_URL_STS": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


class FakePodIdentity(CredentialSource):
    """
    The EKS Pod Identity agent, whose answers have the format of ECS container
    credentials.

    Args:
        authorization: The token that the client must send; None = any.
    """

    def __init__(self, authorization: str | None = None) -> None:
        super().__init__()
        self.authorization = authorization

    def good_answer(self, request: Request) -> Answer:
        if self.authorization not in (None, request.headers.get("authorization")):
            return Answer(403, {}, b'{"message": "not your token"}')
        return _json_answer(self._as_json())

    def environment(self, token_file: Path) -> Texts:
        """
        Return the variables that EKS injects into a pod with Pod Identity, for this
        server.
        """
        return {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.endpoint}/v1/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token_file),
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


class FakeImds(CredentialSource):
    """
    The instance metadata service, version 2.
    """

    _ROLE_PATH = "/latest/meta-data/iam/security-credentials/"

    def good_answer(self, request: Request) -> Answer:
        if request.method == "PUT" and request.path == "/latest/api/token":
            return Answer(
                200,
                {"x-aws-ec2-metadata-token-ttl-seconds": "21600"},
                b"imds-session-token",
            )
        if request.headers.get("x-aws-ec2-metadata-token") != "imds-session-token":
            return Answer(401)
        if request.path == self._ROLE_PATH:
            return Answer(200, {}, b"node-role")
        if request.path == f"{self._ROLE_PATH}node-role":
            return _json_answer({"Code": "Success", **self._as_json()})
        return Answer(404)

    def environment(self) -> Texts:
        """
        Return the variables that select this server instead of 169.254.169.254.
        """
        return {
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


def sts_action(request: Request) -> str:
    """
    Return the action of a request to STS.
    """
    return request.form.get("Action", "")


def is_action(action: str) -> Match:
    """
    Match the requests for an STS action.
    """
    return lambda request: sts_action(request) == action


def _json_answer(document: Texts) -> Answer:
    return Answer(
        200, {"Content-Type": "application/json"}, json.dumps(document).encode()
    )


def _sts_answer(action: str, inner: str) -> Answer:
    document = (
        f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        f"<{action}Result>{inner}</{action}Result>"
        "<ResponseMetadata><RequestId>sts-1</RequestId></ResponseMetadata>"
        f"</{action}Response>"
    )
    return Answer(200, {"Content-Type": "text/xml"}, document.encode())


def _elements(texts: Texts) -> str:
    return "".join(element(name, text) for name, text in texts.items())
