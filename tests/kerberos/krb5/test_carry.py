"""
Sending a message to fake KDCs until one answers; test_acquire.py uses real KDCs.
"""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from threading import Event, Thread

import pytest

from kerberos_sidecar.krb5.carry import PATIENCE, Patience, Unanswered, carry, ways
from kerberos_sidecar.krb5.kdcs import Address, Way
from kerberos_sidecar.krb5.names import Addresses
from tests.support.raising import raised

# Every KDC answers, so that nothing waits this long.
ANSWERED = Patience(3600.0, 3600.0, all_seconds=86400.0, last_seconds=3600.0)
AS_REP = b"\x6b\x03abc"
# Error 29, KDC_ERR_SVC_UNAVAILABLE, in DER.
UNAVAILABLE = b"\x7e\x07\x30\x05\xa6\x03\x02\x01\x1d"


Said = list[tuple[Way, str]]


def ask(
    ways: Sequence[Way], patience: Patience = ANSWERED, said: Said | None = None
) -> tuple[Way, bytes]:
    """Carry a message, and record the result of each way."""
    said = [] if said is None else said
    way, answer, _ = carry(
        b"message", ways, patience, lambda way, text, _: said.append((way, text)), look_up
    )
    return way, answer


def look_up(host: str) -> Addresses:
    """Look up a host without DNS; only the loopback address is known."""

    def wait(_: float) -> list[Address]:
        if host == "127.0.0.1":
            return [(socket.AF_INET, host)]
        raise OSError("Name or service not known")

    return wait


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def udp(stack: ExitStack, *answers: bytes) -> Way:
    """Start a KDC that answers each datagram with the next answer, then stays silent."""
    server = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
    server.bind(("127.0.0.1", 0))

    def serve() -> None:
        for answer in answers:
            server.sendto(answer, server.recvfrom(65536)[1])

    Thread(target=serve, daemon=True).start()
    return Way("127.0.0.1", server.getsockname()[1], "udp")


def tcp(stack: ExitStack, *pieces: bytes) -> Way:
    """Start a KDC that answers a connection in pieces, then closes it."""
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

    def serve() -> None:
        connection = server.accept()[0]
        with connection:
            connection.recv(65536)
            for piece in pieces:
                connection.sendall(piece)

    Thread(target=serve, daemon=True).start()
    return Way("127.0.0.1", server.getsockname()[1], "tcp")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("kdc.example.com", "kdc.example.com", 88),
        (" kdc:750 ", "kdc", 750),
        ("10.0.0.1:88", "10.0.0.1", 88),
        ("[fd00::1]", "fd00::1", 88),
        ("[fd00::1]:750", "fd00::1", 750),
    ],
)
def test_parses_kdc_addresses_as_libkrb5_does(text: str, host: str, port: int) -> None:
    both = [Way(host, port, "udp"), Way(host, port, "tcp")]

    assert both == ways([text], prefers_tcp=False, is_tcp_only=False)
    assert both[::-1] == ways([text, text], prefers_tcp=True, is_tcp_only=False)
    assert both[1:] == ways([text], prefers_tcp=True, is_tcp_only=True)


def test_returns_none_for_addresses_that_only_libkrb5_can_use() -> None:
    for text in ("https://proxy.example.com/KdcProxy", "/run/kdc.sock", "", "kdc:65536"):
        assert None is ways(["kdc", text], prefers_tcp=False, is_tcp_only=False)


def test_reassembles_an_answer_that_arrives_in_pieces(stack: ExitStack) -> None:
    way = tcp(stack, b"\0\0", b"\0\5\x6b", AS_REP[1:])

    assert (way, AS_REP) == ask([way])


@pytest.mark.parametrize(
    "answer", [b"nonsense", AS_REP[:-1], AS_REP + b"x", UNAVAILABLE, b"\x6b", b"\x7e\x84\xff"]
)
def test_skips_a_kdc_whose_answer_is_unusable(stack: ExitStack, answer: bytes) -> None:
    bad, good = udp(stack, answer), udp(stack, AS_REP)

    assert (good, AS_REP) == ask([bad, good])


@pytest.mark.parametrize(
    "pieces",
    [(), (b"\0\0\0\5\x6b",)],
    ids=["closed", "cut"],
)
def test_a_closed_connection_counts_as_refused(stack: ExitStack, pieces: tuple[bytes, ...]) -> None:
    assert "refused" == raised(Unanswered, ask, [tcp(stack, *pieces)]).kind


@pytest.mark.parametrize(
    "size", [b"HTTP", b"\0\x10\0\1", AS_REP[:1] + b"\x02ab", b"\0\0\0\5" + bytes(100)]
)
def test_an_answer_with_an_implausible_length_is_garbage(stack: ExitStack, size: bytes) -> None:
    error = raised(Unanswered, ask, [tcp(stack, size)])

    assert ("garbage", "the answer is not a Kerberos message") == (error.kind, error.said)


def test_accepts_a_slow_answer_after_the_next_kdc_was_asked(stack: ExitStack) -> None:
    server = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
    server.bind(("127.0.0.1", 0))
    slow = Way("127.0.0.1", server.getsockname()[1], "udp")
    other = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
    other.bind(("127.0.0.1", 0))
    silent = Way("127.0.0.1", other.getsockname()[1], "udp")

    def serve() -> None:
        client = server.recvfrom(65536)[1]
        other.recvfrom(65536)  # the next KDC was asked
        server.sendto(AS_REP, client)

    Thread(target=serve, daemon=True).start()

    patience = Patience(next_seconds=0.05, last_seconds=30.0)
    assert (slow, AS_REP) == ask([slow, silent], patience)


def test_a_host_without_address_delays_neither_the_next_kdc_nor_the_error(stack: ExitStack) -> None:
    unknown, good = Way("kdc.test", 88, "tcp"), udp(stack, AS_REP)

    assert (good, AS_REP) == ask([unknown, good])
    assert "refused" == raised(Unanswered, ask, [unknown]).kind


def test_a_silent_kdc_before_a_host_without_address_has_time_to_answer(stack: ExitStack) -> None:
    server = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
    server.bind(("127.0.0.1", 0))
    slow = Way("127.0.0.1", server.getsockname()[1], "udp")
    is_unknown = Event()

    def serve() -> None:
        client = server.recvfrom(65536)[1]
        assert is_unknown.wait(30)
        server.sendto(AS_REP, client)

    Thread(target=serve, daemon=True).start()

    way, answer, _ = carry(
        b"message",
        [slow, Way("kdc.test", 88, "tcp")],
        Patience(next_seconds=0.1, last_seconds=30.0),
        lambda way, *_: is_unknown.set() if way.host == "kdc.test" else None,
        look_up,
    )
    assert (slow, AS_REP) == (way, answer)


def test_a_name_whose_first_name_server_is_dead_is_resolved_by_the_second(stack: ExitStack) -> None:
    """One way, as with udp_preference_limit = 1: DNS answers after two of its shares of time."""
    way = tcp(stack, b"\0\0\0\5" + AS_REP)
    came_at = time.monotonic() + 0.5

    def look_up_late(host: str) -> Addresses:
        def wait(seconds: float) -> list[Address]:
            time.sleep(max(0.0, min(seconds, came_at - time.monotonic())))
            if time.monotonic() < came_at:
                raise TimeoutError
            return [(socket.AF_INET, host)]

        return wait

    found = carry(b"message", [way], Patience(next_seconds=0.2), lambda *_: None, look_up_late)
    assert (way, AS_REP) == found[:2]


@pytest.mark.parametrize("names", [1, 6])
def test_the_error_says_that_dns_does_not_answer(names: int) -> None:
    def look_up_in_vain(_: str) -> Addresses:
        def wait(_: float) -> list[Address]:
            raise TimeoutError

        return wait

    ways = [Way(f"kdc{number}.test", 88, "udp") for number in range(names)]
    arguments = (b"message", ways, Patience(), lambda *_: None, look_up_in_vain)

    error = raised(Unanswered, carry, *arguments)

    assert ("refused", "DNS does not answer") == (error.kind, error.said)


def test_a_silent_kdc_outweighs_a_host_without_address(stack: ExitStack) -> None:
    unknown, silent = Way("kdc.test", 88, "tcp"), Patience(last_seconds=0.1)

    assert "silent" == raised(Unanswered, ask, [unknown, udp(stack)], silent).kind


def test_reports_the_result_of_each_kdc(stack: ExitStack) -> None:
    garbage, busy = udp(stack, b"nonsense"), udp(stack, UNAVAILABLE)
    silent, unknown, good = udp(stack), Way("kdc.test", 88, "udp"), udp(stack, AS_REP)
    said: Said = []

    ask([garbage, busy, unknown, silent, good], Patience(next_seconds=2.0), said)

    heard = dict(said)
    assert [
        "the answer is not a Kerberos message",
        "it reports that it is unavailable",
        "no answer",
        "",
    ] == [heard[way] for way in (garbage, busy, silent, good)]
    assert "Name or service not known" in heard[unknown]


def test_reports_a_silent_kdc_beside_one_that_sends_garbage(stack: ExitStack) -> None:
    silent = udp(stack)
    said: Said = []
    patience = Patience(next_seconds=0.1, last_seconds=2.0)

    assert "garbage" == raised(Unanswered, ask, [silent, udp(stack, b"no")], patience, said).kind

    assert (silent, "no answer") in said


def test_reports_a_silent_kdc_that_had_slightly_less_than_its_time(stack: ExitStack) -> None:
    """Twelve ways share 11 s, so each gets slightly less than a second."""
    silent = udp(stack)
    said: Said = []

    ask([silent, udp(stack, AS_REP)], Patience(next_seconds=0.2, all_seconds=0.195), said)

    assert (silent, "no answer") in said


def test_all_kdcs_share_the_total_time_so_that_the_last_one_is_tried() -> None:
    """As for a name with the addresses of ten KDCs, each over UDP and TCP."""
    patience = Patience(next_seconds=3600.0, all_seconds=0.5, last_seconds=30.0)
    with ExitStack() as stack:
        silent, good = [udp(stack) for _ in range(19)], udp(stack, AS_REP)

        assert (good, AS_REP) == ask([*silent, good], patience)


def test_six_kdcs_get_a_second_per_transport_within_15_seconds() -> None:
    """The promised 15 seconds leave a margin for a slow KDC and a busy machine."""
    ways_of_six = 2 * 6

    assert PATIENCE.all_seconds / (ways_of_six - 1) == PATIENCE.next_seconds == 1.0
    assert PATIENCE.all_seconds + PATIENCE.favorite_seconds < 15
