"""
The last hours in spans of five minutes, each with the worst result of its cycles. Bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

SPAN_SECONDS = 300.0
SPANS = 72

# Results of cycles, best first; a result that is not listed counts as `unchanged`.
KINDS = ("unchanged", "changed", "partial", "error")
_KIND = {"held": "partial", "refused": "partial"} | {kind: kind for kind in KINDS}


class History:
    """
    The results of the last hours; used under the lock of :class:`sidecar_runtime.health.Health`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._spans: deque[tuple[int, str]] = deque(maxlen=SPANS)

    def note(self, result: str) -> None:
        """
        Add the result of a cycle.
        """
        number, kind = self._number(), _KIND.get(result, KINDS[0])
        if self._spans and self._spans[-1][0] == number:
            _, before = self._spans.pop()
            kind = max(kind, before, key=KINDS.index)
        self._spans.append((number, kind))

    def recent(self) -> list[str]:
        """
        Return the result of each span, oldest first, at most :data:`SPANS`.

        A span without a cycle repeats the result of the previous span, except that `changed`
        becomes `unchanged`.
        """
        found: list[str] = []
        last = 0
        for number, kind in [*self._spans, (self._number() + 1, "")]:
            if found:
                found += [_after(found[-1])] * min(number - last - 1, SPANS)
            if kind:
                found.append(kind)
            last = number
        return found[-SPANS:]

    def _number(self) -> int:
        return int(self._clock() // SPAN_SECONDS)


def _after(kind: str) -> str:
    return KINDS[0] if kind == "changed" else kind
