"""
Credentials and AWS configuration, from botocore in a child with a hard deadline.

If a refresh fails, credentials are used until they expire; if a service refuses them,
they are fetched again. A sidecar that uses them depends on botocore, which only the
child imports.
"""

import json
import math
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sidecar_runtime import child, proxies
from sidecar_runtime.aws import EARLY, start_child
from sidecar_runtime.errors import SidecarError, explain
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger

FETCH_SECONDS = 20.0
# While the current credentials are valid, a service that does not answer must not delay
# the cycle.
EARLY_FETCH_SECONDS = 3.0
WHOAMI_SECONDS = 8.0
REFRESH_BEFORE_SECONDS = 900.0
REFRESH_RETRY_SECONDS = 30.0

ADVICE = {
    "credentials_missing": "Give the pod an identity: IRSA (annotate the service account with "
    "eks.amazonaws.com/role-arn) or EKS Pod Identity; or set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY from a Secret. Pods need an IMDS hop limit of 2 for their node's role.",
    "credentials_invalid": "A Secret created with `echo` ends with a newline: use `echo -n`. "
    "Editors and chat tools replace characters: copy the keys from their origin.",
    "credentials_denied": "STS or the Pod Identity agent refused the role. Check its trust policy: "
    "for IRSA the OIDC provider of this cluster, the namespace and the service account; for Pod "
    "Identity its association, and sts:AssumeRole and sts:TagSession for pods.eks.amazonaws.com.",
    "credentials_expired": "Renew the token or session that the credentials are derived from. If "
    "they are new, check the clock of this node.",
    "credentials_unavailable": "If STS, the Pod Identity agent or IMDS did not answer, check "
    "AWS_REGION and the network path; in pods, IMDS needs a hop limit of 2. With less than a "
    "tenth of a core, looking for credentials may take that long by itself.",
    "tls_failed": "If a company CA signs the traffic, set AWS_CA_BUNDLE to its bundle.",
}

log = get_logger("credentials")


@dataclass(frozen=True)
class Credentials:
    """
    The keys that sign a request; `expires_at` is Unix time, None if they do not expire.
    """

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    expires_at: float | None = None
    method: str = ""


# For unsigned requests.
ANONYMOUS = Credentials("", "", method="nobody")


class AwsConfig(NamedTuple):
    """
    The S3 client configuration, as botocore reads it from environment and profile.
    """

    region: str | None
    endpoint_url: str | None
    ca_bundle: str | None
    addressing_style: str | None
    use_fips: bool
    use_dualstack: bool


Prepare = Callable[[AwsConfig], object]
"""`bool` does nothing."""


class CredentialsError(SidecarError):
    """
    No usable credentials are available; the reason is the cause.
    """

    def __init__(self, reason: str, message: str, advice: str = "") -> None:
        advice = advice or ADVICE.get(reason, "")
        through = proxies.configured(os.environ)
        if through and reason in ("credentials_missing", "credentials_unavailable"):
            advice += f" STS is asked through the proxy ({through}), metadata services directly."
        super().__init__(reason, message, advice)


class Chain:
    """
    The credentials of this process, fetched when needed.

    Args:
        is_anonymous: Use :data:`ANONYMOUS` with the configuration; fetch no
            credentials.
    """

    def __init__(self, *, is_anonymous: bool = False) -> None:
        self._is_anonymous = is_anonymous
        self._held: tuple[Credentials, AwsConfig] | None = None
        self._expires_at = self._refresh_at = math.inf
        self._identity: str | None = None

    @property
    def is_due(self) -> bool:
        """
        Whether :meth:`current` asks a service, which takes as long as that likes.
        """
        return self._held is None or time.time() >= self._refresh_at

    def current(
        self, fence: Fence, prepare: Prepare = bool
    ) -> tuple[Credentials, AwsConfig]:
        """
        Return valid credentials; fetch them first if they are missing or about to
        expire.

        Args:
            prepare: Called with the configuration, before a service is asked.

        Raises:
            CredentialsError: The fetch failed, and no earlier credentials are still
                valid.
            CycleAbandoned: The fence was revoked meanwhile.
        """
        now = time.time()
        if self._held is None or now >= self._expires_at:
            return self._fetch(fence, FETCH_SECONDS, prepare)
        if now >= self._refresh_at:
            self._refresh_at = now + REFRESH_RETRY_SECONDS
            try:
                return self._fetch(fence, EARLY_FETCH_SECONDS, prepare)
            except CredentialsError as error:
                log.warning(
                    "credentials_kept", reason=error.reason, error=error.message
                )
        return self._held

    def forget(self) -> None:
        """
        Fetch again at the next use, because a service refused the current credentials.
        """
        self._held = None

    def identity(self, fence: Fence) -> str | None:
        """
        Return the ARN of the caller, asked from STS once; None if STS does not answer.
        """
        if self._is_anonymous:
            return "an anonymous reader"
        if self._identity is None:
            try:
                self._identity = str(ask_child("whoami", WHOAMI_SECONDS, fence)["arn"])
            except CredentialsError:
                self._identity = ""
        return self._identity or None

    def _fetch(
        self, fence: Fence, seconds: float, prepare: Prepare
    ) -> tuple[Credentials, AwsConfig]:
        answer = ask_child(
            "anonymous" if self._is_anonymous else "credentials",
            seconds,
            fence,
            prepare,
        )
        found = answer.pop("credentials", None)
        held = ANONYMOUS if self._is_anonymous else _checked(found)
        self._held = held, AwsConfig(**answer)
        self._identity = None
        self._expires_at = held.expires_at or math.inf
        left = self._expires_at - time.time()
        self._refresh_at = self._expires_at - min(REFRESH_BEFORE_SECONDS, left / 2)
        log.debug("credentials_fetched", method=held.method)
        return self._held


def _checked(found: dict[str, Any] | None) -> Credentials:
    """
    Return credentials that can sign a request.

    Raises:
        CredentialsError: There are none, or they are invalid in a header.
    """
    if found is None:
        text = "botocore found no AWS credentials in any of its sources"
        raise CredentialsError("credentials_missing", text)
    for name in ("access_key", "secret_key", "token"):
        # A program that is asked for keys may print null, or a number.
        value = str(found[name] or "")
        if not re.fullmatch(r"[!-~]*" if name == "token" else r"[!-~]+", value):
            text = (
                f"the {name} from {found['method']} is empty, or contains whitespace, a control "
                "character or a non-ASCII character"
            )
            raise CredentialsError("credentials_invalid", text)
        found[name] = value
    return Credentials(**found)


def waited_seconds(pid: int) -> float:
    """
    Return for how long a process had something to do, but no CPU; 0 if the kernel does
    not say.
    """
    with suppress(OSError, IndexError), open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[1]) / 1e9
    return 0.0


def ask_child(
    question: str,
    seconds: float,
    fence: Fence,
    prepare: Prepare = bool,
) -> dict[str, Any]:
    """
    Ask :mod:`sidecar_runtime.aws.chain` this question; return its answer.

    Args:
        prepare: Called with the configuration, before any service is asked.

    The child is killed when the fence is revoked, or after this many seconds, without
    those in which it waited for a CPU: with a hundredth of one, its imports take 20 s.

    Raises:
        CredentialsError: It answers with an error, or not at all.
        CycleAbandoned: The fence was revoked meanwhile.
    """
    answer = dict[str, Any]()
    complaints = child.Kept()

    def take(line: str) -> None:
        part = json.loads(line)
        answer.update(part)
        if "region" in part:
            prepare(AwsConfig(**part))

    try:
        process = EARLY.pop() if EARLY else start_child()
        assert process.stdin is not None
        # if it has ended, its error tells
        with suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(question.encode())
        until = time.monotonic() + seconds

        def watch() -> None:
            if time.monotonic() - waited_seconds(process.pid) > until:
                raise child.DeadlinePassed

        # After a part of its answer, something may still end it.
        with fence.waiting("the AWS credential chain"):
            code = child.attend(
                process, fence, math.inf, (child.Lines(take), complaints), watch
            )
        if code != 0:
            raise ValueError
    except child.DeadlinePassed:
        text = f"no answer within {seconds:g} s"
    except BlockingIOError as error:
        raise explain(error) from error
    except OSError as error:  # out of memory
        text = f"cannot start the credential chain: {error.strerror}"
    except ValueError:
        text = f"the credential chain failed: {str(complaints).rpartition(chr(10))[2]}"
    else:
        failure = answer.get("error")
        if failure:
            raise CredentialsError(**failure)
        return answer
    raise CredentialsError("credentials_unavailable", text)
