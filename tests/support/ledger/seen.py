"""
What the processes of the tests have shown: the harness notes it, the run compares it.

A name counts when it was seen in a real process: an event or a reason in its log, its
output or its answers, a metric with another value than 0 (a gauge with two values), an
exit code, an option on its command line. A setting counts when a process had another
value than the default, and the file of the test names it, so that it can assert on it.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from docs.sidecars import SIDECARS, Documented
from sidecar_runtime.metrics import Metric
from sidecar_runtime.settings import changed_settings
from tests import ROOT
from tests.support.ledger.documented import ANY, Name, documented

PROGRAMS = {
    "s3-sync": "s3-sync",
    "git-sync-wrapper": "git-sync-wrapper",
    "kerberos-sidecar": "kerberos",
    "sync-perm": "sync-perm",
}
_SAMPLE = re.compile(r"(\w+?)(?:_bucket|_count|_sum)?(?:\{(.*)\})? (\S+)")
_RECORDS = {
    "s3-sync": ("DEST_PATH", ".s3-sync/published.json"),
    "git-sync-wrapper": ("GITSYNC_ROOT", ".snapshots/published.json"),
}


@cache
def _known() -> frozenset[Name]:
    return frozenset(documented())


@cache
def _of_program(program: str) -> Documented | None:
    """
    Return the sidecar that a program is, also under a name such as s3-sync-as-1000.
    """
    for name, sidecar in PROGRAMS.items():
        if program.startswith(name):
            return next(one for one in SIDECARS if one.name == sidecar)
    return None


@cache
def _metrics(sidecar: Documented) -> Mapping[str, Metric]:
    return sidecar.metrics().metrics


@cache
class Ledger:
    """
    The names that this process of the run has seen.
    """

    def __init__(self) -> None:
        self.seen: set[Name] = set()
        self.values: dict[tuple[str, str], set[float]] = defaultdict(set)

    def add(self, sidecar: str, kind: str, name: str) -> None:
        """
        Note a name, if it is a documented one; of a program that is no sidecar (an
        empty name), nothing is.
        """
        if sidecar:
            self.seen |= {Name(sidecar, kind, name), Name(ANY, kind, name)} & _known()

    def take(self, noted: Iterable[Iterable[str]]) -> None:
        """
        Add what another process of the run has noted; see :meth:`noted`.
        """
        self.seen |= {Name(*words) for words in noted} & _known()

    def noted(self) -> list[list[str]]:
        """
        Return the names as plain lists, which one process can send to another.
        """
        return sorted(list(name) for name in self.seen)

    def missing(self) -> list[Name]:
        """
        Return the documented names that nobody has seen.
        """
        return sorted(_known() - self.seen)

    def share(self) -> tuple[int, int]:
        """
        Return how many documented names were seen, and how many there are.
        """
        return len(self.seen), len(_known())


LEDGER = Ledger()


class Witness:
    """
    Notes what one process shows.

    Args:
        program: The program that runs; of one that is no sidecar, nothing is noted.
    """

    def __init__(self, program: Path) -> None:
        self._sidecar = _of_program(program.name)
        self._name = self._sidecar.name if self._sidecar else ""

    def command(self, arguments: Iterable[str], environment: Mapping[str, str]) -> None:
        """
        Note the command line and the settings of a process that starts.
        """
        words = [word.partition("=")[0] for word in arguments]
        if words:
            LEDGER.add(self._name, "command", words[0])
        for word in words[1:]:
            LEDGER.add(self._name, "command", f"{words[0]} {word}")
        if (sidecar := self._sidecar) is None:
            return
        path = ROOT / os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[0]
        text = path.read_text() if path.is_file() else ""
        for name in changed_settings(sidecar.settings, sidecar.prefix, environment):
            if name in text:
                LEDGER.add(self._name, "setting", name)

    def event(self, event: Mapping[str, Any]) -> None:
        """
        Note the name and the reason of a line of the log.
        """
        LEDGER.add(self._name, "event", str(event.get("event")))
        self.output(str(event.get("reason")))

    def output(self, text: str) -> None:
        """
        Note the reasons that a text names.
        """
        for word in set(re.findall(r"\w+", text)):
            LEDGER.add(self._name, "reason", word)

    def answer(self, path: str, status: int, body: str) -> None:
        """
        Note an HTTP answer.
        """
        if path == "/metrics" and self._sidecar:
            for line in body.splitlines():
                self._sample(self._sidecar, line)
        elif path == "/readyz":
            LEDGER.add(self._name, "readyz", str(status))
        if path in ("/readyz", "/status") and body.startswith("{"):
            self.output(str(json.loads(body).get("reason")))

    def _sample(self, sidecar: Documented, line: str) -> None:
        """
        Note a sample: a metric, and each value of its labels.
        """
        match = _SAMPLE.fullmatch(line)
        if match is None or line.startswith("#"):
            return
        metric = match[1]
        labels = match[2] or ""
        value = float(match[3])
        known = _metrics(sidecar).get(metric)
        values = LEDGER.values[sidecar.name, metric]
        values.add(value)
        is_gauge = known is not None and known._type == "gauge"
        is_constant = known is not None and "Constant" in known._documentation
        if len(values) > 1 if is_gauge and not is_constant else value:
            LEDGER.add(self._name, "metric", metric)
        if value:
            for label in re.findall(r'\w+="[^"]*"', labels):
                LEDGER.add(self._name, "label", f"{metric}{{{label}}}")

    def end(self, code: int) -> None:
        """
        Note an exit code.
        """
        LEDGER.add(self._name, "exit code", str(code))

    def record(self, environment: Mapping[str, str]) -> None:
        """
        Note the fields that the published record has now.
        """
        if self._name not in _RECORDS:
            return
        variable, name = _RECORDS[self._name]
        path = Path(environment.get(variable, "/nowhere"), name)
        try:
            facts = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return
        if isinstance(facts, dict):
            for field, value in facts.items():
                if value:
                    LEDGER.add(self._name, "field", field)
