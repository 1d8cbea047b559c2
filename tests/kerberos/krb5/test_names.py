"""
Which KDCs DNS names for a realm, by the resolver of a process of its own.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.name_server import SRV, URI, NameServer, srv, uri

REALM = "EXAMPLE.TEST"
UDP, TCP, NAMED = f"_kerberos._udp.{REALM}", f"_kerberos._tcp.{REALM}", f"_kerberos.{REALM}"
ASK = """
import json
from kerberos_sidecar.krb5.names import Undecided, kdcs_by_dns
try:
    found = kdcs_by_dns("EXAMPLE.TEST", 1.0)
    print(json.dumps(found and [[way.transport, way.kdc] for way in found]))
except Undecided:
    print(json.dumps("undecided"))
"""


def ask(
    records: dict[tuple[str, int], list[bytes]], folder: Path, *, silent: bool = False
) -> object:
    """What a process makes of these records."""
    with NameServer(records) as server:
        server.is_silent = silent
        command = [*server.asked_by(folder), sys.executable, "-c", ASK]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert 0 == done.returncode, done.stderr
        assert server.questions
        return json.loads(done.stdout)


def test_the_best_come_first_and_udp_before_tcp(tmp_path: Path) -> None:
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


def test_uri_records_win(tmp_path: Path) -> None:
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
    ],
    ids=["nothing", "no service", "cut", "pointer", "pointer away", "proxy"],
)
def test_what_is_no_kdc_of_ours_is_passed_over(
    tmp_path: Path, records: dict[tuple[str, int], list[bytes]], found: object
) -> None:
    assert found == ask(records, tmp_path)


def test_a_silent_name_server_is_not_taken_for_no_records(tmp_path: Path) -> None:
    assert "undecided" == ask({}, tmp_path, silent=True)
