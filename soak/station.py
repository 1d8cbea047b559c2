"""
What happens to one sidecar: rounds of a change, a fault and a blow, and the judgment after each.

A round changes the source, lets something go wrong for some seconds, now and then signals a
process meanwhile, and lifts the fault. Then all posts must come into step with the source by
themselves, and leave nothing about.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from random import Random
from typing import Self

from soak.post import BLOWS, END_IT, Post
from soak.readers import Reader

CALM = "none"
BLOW_CHANCE = 0.6
DEADLINE_SECONDS = 180.0
FIRST_SECONDS = 120.0
TIDY_SECONDS = 30.0

Change = Callable[[], object]
Fault = Callable[[], AbstractContextManager[object]]
Say = Callable[[str], object]


class Missing(Exception):
    """
    This machine lacks what a station needs; the text is one line.
    """


class Bag:
    """
    Names drawn by chance, each as often as any other.
    """

    def __init__(self, names: Iterable[str], chance: Random) -> None:
        self._names = sorted(names)
        self._chance = chance
        self._left: list[str] = []

    def draw(self) -> str:
        """
        Return the next name.
        """
        if not self._left:
            self._left = self._chance.sample(self._names, len(self._names))
        return self._left.pop()


@dataclass
class Tally:
    """
    What has happened at a station.

    Attributes:
        converged: Seconds from the end of each fault until all posts were in step.
        flaws: What should not have been, beside what posts and readers have seen.
    """

    changes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    blows: Counter[str] = field(default_factory=Counter)
    converged: list[float] = field(default_factory=list)
    flaws: list[str] = field(default_factory=list)

    @property
    def rounds(self) -> int:
        return self.changes.total()

    @property
    def median_seconds(self) -> float:
        return statistics.median(self.converged) if self.converged else 0.0


class Station:
    """
    One sidecar with its source, its posts and its readers; a `with` statement starts it.

    A subclass opens all that it needs on `stack`, in its constructor what does not run by itself
    and in `set_up` the rest, and fills `posts`, `readers`, `changes` and `faults`.

    Args:
        seed: Of what happens; when it happens is up to the machine.
        say: Told one line for each event.
    """

    name = ""

    def __init__(self, seed: str, say: Say) -> None:
        self.chance = Random(f"{seed} {self.name}")
        self.say: Say = lambda text: say(f"{self.name}: {text}")
        self.stack = ExitStack()
        self.ended = threading.Event()
        self.tally = Tally()
        self._told: set[str] = set()
        self.posts: list[Post] = []
        self.readers: list[Reader] = []
        self.changes: Mapping[str, Change] = {}
        self.faults: Mapping[str, Fault] = {}

    def set_up(self) -> None:
        """
        Start servers, posts and readers.

        Raises:
            Missing: Something is not on this machine.
        """
        raise NotImplementedError

    def behind(self) -> list[str]:
        """
        Say in what the posts are not in step with the source; empty when they are.
        """
        raise NotImplementedError

    def leftovers(self) -> list[str]:
        """
        What lies about and should not while all is calm.
        """
        raise NotImplementedError

    def engine(self) -> str:
        """
        What took part beside the sidecar, for the report.
        """
        return ""

    def __enter__(self) -> Self:
        try:
            self.set_up()
            for post in self.posts:
                self.stack.enter_context(post)
            self._wait_until_in_step(FIRST_SECONDS, "at the start")
            for post in self.posts:
                post.watch()
            for reader in self.readers:
                self.stack.enter_context(reader)
        except BaseException:
            self.stack.close()
            raise
        self.changes_left = Bag(self.changes, self.chance)
        self.faults_left = Bag([*self.faults, CALM], self.chance)
        self.blows_left = Bag(BLOWS, self.chance)
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def run(self, until: float) -> None:
        """
        Let rounds happen until a moment of the monotonic clock, or `ended`; one in any case.
        """
        self.round()
        while not self.ended.is_set() and time.monotonic() < until:
            self.round()

    def round(self) -> None:
        """
        One change, one fault, perhaps one blow; then everything must be well.
        """
        change, fault = self.changes_left.draw(), self.faults_left.draw()
        blow = self.blows_left.draw() if self.chance.random() < BLOW_CHANCE else CALM
        what = f"change: {change}, fault: {fault}, blow: {blow}"
        self.say(what)
        self.changes[change]()
        with self.faults.get(fault, nullcontext)():
            self.hold(0, 3)
            if blow != CALM:
                self._strike(blow)
            self.hold(0, 2)
        self.tally.changes[change] += 1
        self.tally.faults[fault] += fault != CALM
        self._wait_until_in_step(DEADLINE_SECONDS, what)
        self._wait_until_tidy(what)
        for flaw in self.flaws:
            if flaw not in self._told:
                self._told.add(flaw)
                self.say(f"FLAW: {flaw}")

    def _strike(self, name: str) -> None:
        post = self.chance.choice([p for p in self.posts if name not in END_IT or not p.is_spared])
        BLOWS[name](post, self.chance)
        self.tally.blows[name] += 1

    def hold(self, least: float, most: float) -> None:
        """
        Wait for seconds by chance; not once the run is over.
        """
        self.ended.wait(self.chance.uniform(least, most))

    def _wait_until_in_step(self, deadline_seconds: float, what: str) -> None:
        began = time.monotonic()
        while behind := self.behind():
            if time.monotonic() - began > deadline_seconds:
                self.flaw(f"not in step {deadline_seconds:g} s after {what}: {'; '.join(behind)}")
                break
            if self.ended.wait(0.1):
                return
        self.tally.converged.append(time.monotonic() - began)

    def _wait_until_tidy(self, what: str) -> None:
        """
        Wait until nothing lies about: a cycle of this very moment may have just begun.
        """
        began = time.monotonic()
        while left := self.leftovers():
            if time.monotonic() - began > TIDY_SECONDS:
                self.flaw(f"left about after {what}: {'; '.join(left)}")
                return
            if self.ended.wait(0.1):
                return

    @contextmanager
    def until_in_step(self) -> Iterator[None]:
        """
        Do what is inside, and wait until all posts are in step again.
        """
        yield
        self._wait_until_in_step(DEADLINE_SECONDS, "damage by hand")

    def flaw(self, text: str) -> None:
        """
        Write down what should not be.
        """
        self.tally.flaws.append(text)

    def close(self) -> None:
        """
        End readers and posts as a pod does, and judge what they were.
        """
        for reader in self.readers:
            reader.stop()
        for post in self.posts:
            post.stop()
            if post.is_spared:
                grown = [series.flaw for series in post.series().values() if series.flaw]
                post.flaws += [f"{post.name}: {flaw}" for flaw in grown]

    @property
    def flaws(self) -> list[str]:
        """
        All that should not have been; what readers have seen again and again is there once.
        """
        of_posts = [flaw for post in self.posts for flaw in post.flaws]
        of_readers = [flaw for reader in self.readers for flaw in list(reader.flaws)]
        return [*self.tally.flaws, *of_posts, *of_readers]
