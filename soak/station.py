"""
The events of one sidecar: rounds of a change, a fault and a blow, and the checks after each.

A round changes the source, injects a fault for some seconds, sometimes signals a process meanwhile,
and removes the fault. Then all posts must match the source again without help, and leave no
temporary files behind.
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
    A requirement of a station is missing on this machine; the text is one line.
    """


class Bag:
    """
    Names in random order, all drawn equally often.
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
    The events at a station.

    Attributes:
        converged: Seconds from the end of each fault until all posts matched the source.
        flaws: Flaws other than those found by posts and readers.
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
    One sidecar with its source, posts and readers; a `with` statement starts it.

    A subclass registers all its resources on `stack`: those without processes in its constructor,
    the others in `set_up`. It fills `posts`, `readers`, `changes` and `faults`.

    Args:
        seed: The seed of the events; their times depend on the machine.
        say: Receives a line for each event.
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
        Start the servers, and create posts and readers.

        Raises:
            Missing: A requirement is missing on this machine.
        """
        raise NotImplementedError

    def behind(self) -> list[str]:
        """
        Return how the posts differ from the source; empty if they match it.
        """
        raise NotImplementedError

    def leftovers(self) -> list[str]:
        """
        Return the temporary files that should not exist between rounds.
        """
        raise NotImplementedError

    def engine(self) -> str:
        """
        Return the other software that took part, for the report.
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
        Run rounds until a time of the monotonic clock or until `ended`; at least one.
        """
        self.round()
        while not self.ended.is_set() and time.monotonic() < until:
            self.round()

    def round(self) -> None:
        """
        Run a round: a change, a fault, perhaps a blow, and then all checks.
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
        Wait for a random number of seconds, or until the run ends.
        """
        self.ended.wait(self.chance.uniform(least, most))

    def _wait_until_in_step(self, deadline_seconds: float, what: str) -> None:
        began = time.monotonic()
        while behind := self.behind():
            if time.monotonic() - began > deadline_seconds:
                self.flaw(
                    f"did not match the source {deadline_seconds:g} s after {what}: "
                    f"{'; '.join(behind)}"
                )
                break
            if self.ended.wait(0.1):
                return
        self.tally.converged.append(time.monotonic() - began)

    def _wait_until_tidy(self, what: str) -> None:
        """
        Wait until no temporary files remain: a cycle may be running right now.
        """
        began = time.monotonic()
        while left := self.leftovers():
            if time.monotonic() - began > TIDY_SECONDS:
                self.flaw(f"left behind after {what}: {'; '.join(left)}")
                return
            if self.ended.wait(0.1):
                return

    @contextmanager
    def until_in_step(self) -> Iterator[None]:
        """
        Run the body, then wait until all posts match the source again.
        """
        yield
        self._wait_until_in_step(DEADLINE_SECONDS, "damage by hand")

    def flaw(self, text: str) -> None:
        """
        Record a flaw.
        """
        self.tally.flaws.append(text)

    def close(self) -> None:
        """
        End readers and posts as a pod does, and check the growth of spared posts.
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
        All flaws; a flaw that readers saw repeatedly is listed once.
        """
        of_posts = [flaw for post in self.posts for flaw in post.flaws]
        of_readers = [flaw for reader in self.readers for flaw in list(reader.flaws)]
        return [*self.tally.flaws, *of_posts, *of_readers]
