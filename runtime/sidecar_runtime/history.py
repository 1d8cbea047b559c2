"""
The last hours in spans of five minutes: of each, the worst that its cycles came to. Bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

SPAN_SECONDS = 300.0
SPANS = 72

# From good to bad, as the results of cycles; what is not named here is as good as `unchanged`.
KINDS = ("unchanged", "changed", "partial", "error")
_KIND = {"held": "partial", "refused": "partial"} | {kind: kind for kind in KINDS}


class History:
    """
    Belongs to :class:`sidecar_runtime.health.Health`, whose lock it is used under.
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
        Return what each span came to, the oldest first, at most :data:`SPANS`.

        A span without a cycle goes on with the end of the one before: what failed still fails,
        and what was changed is so no more.
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
