"""
Failures that are not bugs: each has an exit code, a machine-readable reason and advice.

Their texts may come from strangers: :func:`printable` and :func:`json_text` make them
safe.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_SETTINGS = 2
EXIT_GAVE_UP = 3
MESSAGE_CHARACTERS = 10_000
"""What a server says may be of any size, and each line of the log is a whole message."""

# In JSON: an escaped backslash, one character as a pair of surrogates, or a lone
# surrogate.
_SURROGATES = re.compile(r"\\\\|\\ud[89ab]..\\ud[c-f]..|\\(ud[89a-f]..)")


class SidecarError(Exception):
    """
    A failure that a person can act on.

    Args:
        reason: One word for metrics, logs and status; different for each cause that a
            person would treat differently.
        message: What happened, with the relevant names. Never a secret.
        advice: What to do about it; empty if the message is sufficient.

    Attributes:
        retry_within_seconds: Upper limit for the wait before the next try, for failures
            during which something expires; ``None`` leaves the wait to the backoff.
        retry_after_seconds: Lower limit; only whoever asks for a cycle ends it before.
    """

    exit_code = EXIT_GAVE_UP
    retry_after_seconds = 0.0
    retry_within_seconds: float | None = None

    def __init__(self, reason: str, message: str, advice: str = "") -> None:
        message = message[:MESSAGE_CHARACTERS]
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.advice = advice

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
    One wrong setting: its name, the value as given (never a secret), and what is
    allowed.

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

    Names and values come from the environment, which may contain any bytes: what is not
    printable is escaped in the `problems`.
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
        return SidecarError(
            "memory_limit", said, "Raise the memory limit of this container."
        )
    # What threads say, and fork().
    if "can't start new thread" in said or isinstance(error, BlockingIOError):
        return SidecarError(
            "process_limit",
            f"no thread or process can be started ({said})",
            "A limit of processes is reached: the kubelet's for pods (podPidsLimit), the user's "
            "(ulimit -u) or the node's (kernel.pid_max). Find out what runs there, or raise it.",
        )
    return SidecarError(
        "bug", said, "Please report this bug with the traceback from the log."
    )


# --- the text of strangers


def printable(text: str) -> str:
    """
    Return a text with escaped invisible characters, such as those that control a
    terminal.

    Names, messages and server answers are untrusted: an escape sequence could hide an
    error, and a bidirectional control character could reorder the text next to it.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def json_text(value: object, **how: Any) -> str:
    r"""
    Return JSON that strict readers accept: a lone surrogate, as in a file name that is
    not UTF-8, becomes the text that :func:`printable` returns, such as ``\udce9``.

    Args:
        how: Arguments of :func:`json.dumps`.
    """
    return _SURROGATES.sub(
        lambda found: rf"\\{found[1]}" if found[1] else found[0],
        json.dumps(value, **how),
    )


def counted(number: int, noun: str) -> str:
    """
    Return a number with its noun: ``1 file``, ``2 files``.
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"
