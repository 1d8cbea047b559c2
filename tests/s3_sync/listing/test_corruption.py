"""Random corruptions: bytes that contradict a digest that must match are never visible."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.conftest import counts_of
from tests.s3_sync.listing.fetching import Fetching, reasons, tree
from tests.support.aws.checksums import header_value
from tests.support.aws.fake_s3 import is_get
from tests.support.http.loopback import Answer, Exchange

BATCH = 100
CHECKSUMS = ("crc32", "crc32c", "crc64nvme", "sha1", "sha256")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("seed", range(counts_of(metafunc.config).corruptions // BATCH))


def flip(body: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(body))
    return body[:place] + bytes([body[place] ^ 1 << chance.randrange(8)]) + body[place + 1 :]


def cut(body: bytes, chance: random.Random) -> bytes:
    return body[: chance.randrange(len(body))]


def pad(body: bytes, chance: random.Random) -> bytes:
    return body + chance.randbytes(chance.randint(1, 40))


def swap(body: bytes, chance: random.Random) -> bytes:
    """Swap the two parts of a body."""
    place = chance.randrange(1, len(body)) if len(body) > 1 else 0
    return body[place:] + body[:place]


def blank(body: bytes, chance: random.Random) -> bytes:
    """Replace a range with zeros, as a disk error may."""
    begin = chance.randrange(len(body))
    end = chance.randint(begin + 1, len(body))
    return body[:begin] + bytes(end - begin) + body[end:]


def other(body: bytes, chance: random.Random) -> bytes:
    """Return random bytes of the same length."""
    return chance.randbytes(len(body))


WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (flip, cut, pad, swap, blank, other)


@dataclass(frozen=True)
class Case:
    """
    One object, and how it is altered in transit.

    Args:
        old: The published content; None if there is none.
        checksum: The checksum in a header; empty if the ETag is an MD5 instead.
        way: How its bytes are altered; None if the checksum is altered instead.
    """

    path: str
    old: bytes | None
    body: bytes
    checksum: str
    way: Callable[[bytes, random.Random], bytes] | None

    @property
    def headers(self) -> dict[str, str]:
        if not self.checksum:
            return {}
        return {f"x-amz-checksum-{self.checksum}": header_value(self.checksum, self.body)}

    def altered(self, answer: Answer, chance: random.Random) -> Answer:
        """Return a well-framed response whose body contradicts its checksum."""
        body = answer.body
        if self.way is not None:
            while body == answer.body:
                body = self.way(answer.body, chance)
            return replace(answer, body=body)
        promise = header_value(self.checksum, answer.body + b"!")
        return replace(
            answer, headers={**answer.headers, f"x-amz-checksum-{self.checksum}": promise}
        )


def make_case(number: int, chance: random.Random) -> Case:
    # One percent are big; they have an MD5 because the tests' CRCs are slow.
    is_big = chance.random() < 0.01
    size = (1 << 20) + chance.randint(1, 5000) if is_big else chance.randint(1, 400)
    checksum = "" if is_big or chance.random() < 0.4 else chance.choice(CHECKSUMS)
    return Case(
        f"{number:03}.py",
        chance.randbytes(chance.randint(0, 50)) if chance.random() < 0.5 else None,
        chance.randbytes(size),
        checksum,
        chance.choice((*WAYS, None) if checksum else WAYS),
    )


def test_corrupt_objects_are_never_published_and_good_ones_are_afterwards(
    seed: int, fetching: Fetching, folder: Path
) -> None:
    fetching.verify = "strict"
    chance = random.Random(seed)
    cases = {case.path: case for case in (make_case(number, chance) for number in range(BATCH))}
    olds = {case.path: case.old for case in cases.values() if case.old is not None}
    fetching.s3.put_all(olds, "dags/")
    fetching.fetch()
    for case in cases.values():
        etag = f"{seed:030x}{case.path[:3]}-2" if case.checksum else None
        fetching.s3.put(f"dags/{case.path}", case.body, etag=etag, headers=case.headers)

    def alter(exchange: Exchange) -> None:
        path = exchange.request.path.rpartition("/")[2]
        exchange.send(cases[path].altered(exchange.good(), chance))

    fetching.s3.inject(alter, is_get())
    work = fetching.fetch(list(cases))

    print(f"seed {seed}")
    assert olds == tree(folder)
    assert dict.fromkeys(cases, "object_corrupt") == reasons(work)
    fetching.s3.heal()
    assert {} == fetching.fetch(list(cases)).failed
    assert {case.path: case.body for case in cases.values()} == tree(folder)
