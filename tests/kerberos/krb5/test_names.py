"""
KDCs and host addresses from DNS, looked up in a process with its own resolv.conf.
"""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.kerberos.name_server import SRV, URI, A, Behavior, NameServer, srv, uri

REALM = "EXAMPLE.TEST"
UDP, TCP, NAMED = f"_kerberos._udp.{REALM}", f"_kerberos._tcp.{REALM}", f"_kerberos.{REALM}"
ASK = """
import json
from kerberos_sidecar.krb5.names import Undecided, kdcs_by_dns
try:
    found = kdcs_by_dns("EXAMPLE.TEST", 1.0, lambda weight: 1 / weight)
    print(json.dumps(found and [[way.transport, way.kdc] for way in found]))
except Undecided:
    print(json.dumps("undecided"))
"""


def ask(
    records: dict[tuple[str, int], list[bytes]], folder: Path, *, silent: bool = False
) -> object:
    """Return the KDCs that a process finds with these DNS records."""
    with NameServer(records) as server:
        server.behavior = "silent" if silent else "answer"
        command = [*server.asked_by(folder), sys.executable, "-c", ASK]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert 0 == done.returncode, done.stderr
        assert server.questions
        return json.loads(done.stdout)


def test_orders_kdcs_by_priority_and_weight_and_udp_before_tcp(tmp_path: Path) -> None:
    records = {
        (UDP, SRV): [
            srv("far.test.", 88, 10),
            srv("light.test", 88, 5, 1),
            srv("near.test", 750, 5, 9),
        ],
        (TCP, SRV): [srv("tcp.test", 88)],
    }

    assert [
        ["udp", "near.test:750"],
        ["udp", "light.test:88"],
        ["udp", "far.test:88"],
        ["tcp", "tcp.test:88"],
    ] == ask(records, tmp_path)


def test_uri_records_override_srv_records(tmp_path: Path) -> None:
    records = {
        (UDP, SRV): [srv("old.test", 88)],
        (NAMED, URI): [uri("krb5srv:m:tcp:second.test", 2), uri("krb5srv::udp:first.test:750", 1)],
    }

    assert [["udp", "first.test:750"], ["tcp", "second.test:88"]] == ask(records, tmp_path)


@pytest.mark.parametrize(
    ("records", "found"),
    [
        ({}, []),
        ({(UDP, SRV): [srv("", 0)]}, []),
        ({(UDP, SRV): [srv("kdc.test", 88)[:9]]}, []),
        ({(UDP, SRV): [b"\0" * 6 + b"\xc0\x0c"]}, [["udp", f"{UDP}:0"]]),
        ({(UDP, SRV): [b"\0" * 6 + b"\xff\xff"]}, []),
        ({(NAMED, URI): [uri("krb5srv:m:kkdcp:https://proxy.test")]}, None),
        ({(NAMED, URI): [uri("krb5srv:m:udp:kdc.test:65536")]}, None),
    ],
    ids=["nothing", "no service", "cut", "pointer", "pointer away", "proxy", "no port"],
)
def test_does_not_fail_on_records_that_name_no_usable_kdc(
    tmp_path: Path, records: dict[tuple[str, int], list[bytes]], found: object
) -> None:
    assert found == ask(records, tmp_path)


SHARE = """
import json
import random
from collections import Counter
from kerberos_sidecar.krb5.names import kdcs_by_dns
chance = random.Random(7).expovariate
first = (kdcs_by_dns("EXAMPLE.TEST", 30.0, chance)[0].host for _ in range(400))
print(json.dumps(Counter(first)))
"""


@pytest.mark.parametrize(
    "records",
    [
        {(UDP, SRV): [srv(f"kdc{weight}.test", 88, 1, weight) for weight in (0, 1, 3)]},
        {(NAMED, URI): [uri(f"krb5srv:m:udp:kdc{weight}.test", 1, weight) for weight in (0, 1, 3)]},
    ],
    ids=["SRV", "URI"],
)
def test_spreads_pods_over_kdcs_of_equal_priority_by_weight(
    tmp_path: Path, records: dict[tuple[str, int], list[bytes]]
) -> None:
    """Weights as in RFC 2782 and, for URI records, RFC 7553."""
    with NameServer(records) as server:
        command = [*server.asked_by(tmp_path), sys.executable, "-c", SHARE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
    counts = json.loads(done.stdout)
    assert 280 < counts["kdc3.test"] < 320
    assert 80 < counts["kdc1.test"] < 120


def test_a_silent_name_server_does_not_count_as_no_records(tmp_path: Path) -> None:
    assert "undecided" == ask({}, tmp_path, silent=True)


LOOK_UP = """
import sys
from kerberos_sidecar.krb5.names import addresses
last = {}
for line in sys.stdin:
    try:
        print(addresses("kdc.test", last)(float(line)), flush=True)
    except OSError as error:
        print(repr(error), flush=True)
"""


def test_keeps_a_hosts_addresses_while_dns_fails_but_not_if_it_has_none(tmp_path: Path) -> None:
    with NameServer({("kdc.test", A): [socket.inet_aton("127.0.0.7")]}) as server:
        command = [*server.asked_by(tmp_path), sys.executable, "-c", LOOK_UP]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:

            def said(behavior: Behavior, wait_seconds: float) -> str:
                assert process.stdin and process.stdout
                server.behavior = behavior
                print(wait_seconds, file=process.stdin, flush=True)
                return process.stdout.readline().strip()

            known = f"[({socket.AF_INET!r}, '127.0.0.7')]"
            assert [known, known, known] == [
                said("answer", 30.0),
                said("refuse", 30.0),
                said("silent", 0.1),
            ]
            server.records = {}
            assert "Name or service not known" in said("answer", 30.0)
