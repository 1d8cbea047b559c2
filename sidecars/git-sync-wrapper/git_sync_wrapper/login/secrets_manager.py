"""
The provider that reads AWS Secrets Manager.
"""

from __future__ import annotations

import json
import re
import threading
import time

from git_sync_wrapper.credential_source import region_of_arn
from git_sync_wrapper.login.credential import UNKNOWN_IDENTITY, Credential, CredentialError, Wanted
from git_sync_wrapper.login.secret import Cleaner, Secret
from sidecar_runtime.aws.credentials import Chain, ask_child
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger

CHILD = "git_sync_wrapper.login.secret_child"
READ_SECONDS = 20.0
# Within that; the rest is for the AWS credentials.
ANSWER_SECONDS = 12.0
# One sync asks once for each submodule; a rotation is noticed by the poll before it.
FRESH_SECONDS = 2.0
USERNAME_KEYS = ("username", "GITSYNC_USERNAME", "GIT_SYNC_USERNAME")
PASSWORD_KEYS = ("password", "token", "GITSYNC_PASSWORD", "GIT_SYNC_PASSWORD")
FORM = 'Store it as {"username": "…", "password": "…"}'

_ARN = re.compile(r"on resource: (\S+)")

log = get_logger("secrets")


class SecretsManager:
    """
    A username and a password in one secret, or a password alone, for one server.

    While the secret cannot be read, the last value is used.
    """

    def __init__(
        self,
        secret: str,
        stage: str,
        server: Wanted,
        username: Secret | None,
        cleaner: Cleaner,
        fresh_seconds: float = FRESH_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._secret = secret
        self._stage = stage
        self._server = server
        self._username = username
        self._cleaner = cleaner
        self._fresh_seconds = fresh_seconds
        self._answer_seconds = answer_seconds
        self._chain = Chain()  # for our identity in errors
        self._lock = threading.Lock()
        self._kept: Credential | None = None
        self._read_at = 0.0

    def credential(self, wanted: Wanted, fence: Fence) -> Credential | None:
        """
        Return the current content of the secret.
        """
        if not wanted.is_same_server(self._server):
            return None
        with self._lock:
            if self._kept is None or time.monotonic() - self._read_at > self._fresh_seconds:
                self._refresh(fence)
            return self._kept

    def refused(self, wanted: Wanted) -> None:
        """
        Read it again at the next use.
        """
        if wanted.is_same_server(self._server):
            with self._lock:
                self._kept = None
                self._cleaner.refused(self._name("username"), self._name("password"))

    def _refresh(self, fence: Fence) -> None:
        try:
            self._kept = self._parse(self._read(fence))
        except SidecarError as error:
            if self._kept is None:
                raise
            log.warning("secret_kept", secret=self._secret, reason=error.reason, error=str(error))
        self._read_at = time.monotonic()

    def _read(self, fence: Fence) -> str:
        region = region_of_arn(self._secret) or ""
        arguments = [self._secret, self._stage, region, f"{self._answer_seconds:g}"]
        answer = ask_child(CHILD, arguments, READ_SECONDS, fence)
        if refused := answer.get("refused"):
            raise self._explain(refused["code"], refused["message"], fence)
        return str(answer["text"])

    def _parse(self, text: str) -> Credential:
        username, password = "", text
        if text.lstrip().startswith("{"):
            fields = self._fields(text)
            username = next((fields[key] for key in USERNAME_KEYS if fields.get(key)), "")
            password = next((fields[key] for key in PASSWORD_KEYS if fields.get(key)), "")
        if not password:
            raise CredentialError(
                "secret_malformed",
                f"the secret {self._secret} contains none of {', '.join(PASSWORD_KEYS)}",
                f"{FORM}, or as the password alone.",
            )
        if username:
            username = self._clean("username", username)
        elif self._username is not None:
            username = self._username.read()
        else:
            raise CredentialError(
                "username_missing",
                f"the secret {self._secret} contains no username",
                f"{FORM}, or set GITSYNC_USERNAME. GitHub accepts any name with a token, and "
                "GitLab except with a deploy token.",
            )
        origin = f"the secret {self._secret}"
        return Credential(username, self._clean("password", password), origin=origin)

    def _fields(self, text: str) -> dict[str, str]:
        try:
            fields = json.loads(text)
        except ValueError:
            raise CredentialError(
                "secret_malformed", f"the secret {self._secret} is not complete JSON", f"{FORM}."
            ) from None
        return {key: value for key, value in fields.items() if isinstance(value, str)}

    def _clean(self, what: str, value: str) -> str:
        raw = value.encode("utf-8", "surrogateescape")
        return self._cleaner.password(self._name(what), raw)

    def _name(self, what: str) -> str:
        return f"{what} in {self._secret}"

    def _explain(self, code: str, message: str, fence: Fence) -> CredentialError:
        said = f"{code}: {message}"
        match code:
            case "AccessDeniedException" if "KMS" not in message and "kms:" not in message:
                arn = _ARN.search(message)
                reason, action = "access_denied", "secretsmanager:GetSecretValue"
                on = arn[1] if arn else self._secret
            case "AccessDeniedException" | "DecryptionFailure":
                reason, action, on = "kms_key_unusable", "kms:Decrypt", "the KMS key of the secret"
            case "ResourceNotFoundException" if "staging label" in message:
                return CredentialError(
                    "secret_stage_not_found",
                    f"the secret {self._secret} has no version with the stage {self._stage}",
                    "Check GIT_SYNC_WRAPPER_SECRET_STAGE; the usual stage is AWSCURRENT.",
                )
            case "ResourceNotFoundException":
                return CredentialError(
                    "secret_not_found",
                    f"the secret {self._secret} does not exist ({said})",
                    "Check its name, AWS_REGION and the account. For a secret in another account, "
                    "set its ARN.",
                )
            case "InvalidRequestException" if "KMS" in message:
                return CredentialError(
                    "kms_key_unusable",
                    f"the secret {self._secret} cannot be read ({said})",
                    "Encrypt the secret with a KMS key of your own, and allow this account in the "
                    "policies of the key and of the secret.",
                )
            case "InvalidRequestException":
                return CredentialError(
                    "secret_not_found",
                    f"the secret {self._secret} cannot be read ({said})",
                    "If it is scheduled for deletion, restore it.",
                )
            case "NoRegion":
                return CredentialError(
                    "region_missing",
                    f"no region is known for the secret {self._secret}",
                    "Set AWS_REGION, or use the ARN of the secret.",
                )
            case _:
                return CredentialError(
                    "secret_unavailable",
                    f"Secrets Manager does not return {self._secret} ({said})",
                    "Retried; if it keeps failing, check the quoted error. A VPC without internet "
                    "needs an endpoint for secretsmanager.",
                )
        who = self._chain.identity(fence) or UNKNOWN_IDENTITY
        return CredentialError(
            reason,
            f"{who} is not authorized to perform {action} on {on} ({said})",
            f"Allow {action} on {on} in the policy of the role; also check the policies of the "
            "secret and of its key.",
        )
