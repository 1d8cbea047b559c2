"""
Failures that are not bugs: each has an exit code, a machine-readable reason and advice.
"""

from collections.abc import Iterable
from typing import NamedTuple

from sidecar_runtime.printable import printable

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_SETTINGS = 2
EXIT_GAVE_UP = 3


class SidecarError(Exception):
    """
    A failure that a person can act on.

    Args:
        reason: One word for metrics, logs and status; different for each cause that a
            person would treat differently.
        message: What happened, with the relevant names. Never a secret.
        advice: What to do about it; empty if the message is sufficient.

    Attributes:
        retry_within_seconds: Upper limit for the wait before the next try, for failures during
            which something expires; ``None`` leaves the wait to the backoff.
    """

    exit_code = EXIT_GAVE_UP

    def __init__(self, reason: str, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.advice = advice
        self.retry_within_seconds: float | None = None

    def log_fields(self) -> dict[str, str]:
        """
        Return reason, message and advice as a log line contains them.
        """
        return {"reason": self.reason, "error": self.message, "advice": self.advice}


class GaveUp(SidecarError):
    """
    A failure that ends the process, such as the deadline of a one-shot.
    """


class Problem(NamedTuple):
    """
    One wrong setting: its name, the value as given (never a secret), and what is allowed.

    `value` is None if the variable is not a setting, because it may contain a password.
    """

    setting: str
    value: str | None
    problem: str

    def __str__(self) -> str:
        value = "" if self.value is None else f"={self.value!r}"
        return f"{self.setting}{value} {self.problem}"


class SettingsError(SidecarError):
    """
    One or more settings are wrong; all of them are listed.

    Names and values come from the environment, which may contain any bytes: what is not printable
    is escaped in the `problems`.
    """

    exit_code = EXIT_SETTINGS

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = [
            Problem(printable(setting), value and printable(value), printable(problem))
            for setting, value, problem in problems
        ]
        super().__init__("settings_rejected", "; ".join(map(str, self.problems)))


def explain(error: BaseException) -> SidecarError:
    """
    Return what a person can do about an error, whatever it is.
    """
    if isinstance(error, SidecarError):
        return error
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError):
        return SidecarError("memory_limit", said, "Raise the memory limit of this container.")
    # What threads say, and fork().
    if "can't start new thread" in said or isinstance(error, BlockingIOError):
        return SidecarError(
            "process_limit",
            f"no thread or process can be started ({said})",
            "A limit of processes is reached: of this pod (podPidsLimit of the kubelet), of its "
            "user (ulimit -u) or of the node (kernel.pid_max). Find out what runs there, or raise "
            "it.",
        )
    advice = "This is a bug. Please report it with the traceback from the log."
    return SidecarError("bug", said, advice)
