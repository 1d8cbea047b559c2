"""
The script that finds Secrets that were encoded twice.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys

import pytest

from tests.chart.files import SNIPPETS

SCRIPT = SNIPPETS / "secrets" / "find_double_encoding.py"
KEYTAB = b"\x05\x02\x00\x00\x00\x4a\x00\x01\x00\x0bEXAMPLE.COM" + bytes(range(60))
DOCKER = b'{"auths": {"registry.example.com": {"auth": "eDp5"}}}'
GENERATED = base64.b64encode(
    b"uU3gS0mYb1dRr9jJz5hQx7cVt2LkWn8P"
)  # as by the chart: randAlphaNum 32
NOISE = base64.urlsafe_b64encode(bytes(range(190, 222)))


def search(text: str, says: str = "") -> tuple[int, list[str]]:
    """
    Run the script; assert its standard error, and return its exit code and output.
    """
    done = subprocess.run([sys.executable, SCRIPT], input=text, capture_output=True, text=True)
    assert says == done.stderr
    return done.returncode, done.stdout.splitlines()


def secret(key: str, value: bytes) -> dict[str, object]:
    return {
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": "airflow"},
        "data": {key: base64.b64encode(value).decode()},
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("GITSYNC_PASSWORD", base64.b64encode(b"a token of some kind")),
        ("GITSYNC_PASSWORD", base64.b64encode(b"a token of some kind") + b"\n"),
        ("airflow.keytab", base64.b64encode(KEYTAB)),
        ("airflow.keytab", base64.encodebytes(KEYTAB)),
        (".dockerconfigjson", base64.b64encode(DOCKER)),
        ("fernet-key", base64.b64encode(NOISE)),
        ("fernet-key", base64.b64encode(GENERATED)),
        ("GITSYNC_PASSWORD", base64.b64encode("pässwörter 암호".encode())),
    ],
)
def test_reports_a_value_that_was_encoded_twice_without_showing_it(key: str, value: bytes) -> None:
    code, lines = search(json.dumps(secret(key, value)))

    assert (1, [f"airflow/s: {key} is base64 text: encoded twice"]) == (code, lines)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("GITSYNC_PASSWORD", b"password"),
        ("GITSYNC_PASSWORD", b"ghp_abcdefghijklmnopqrstuvwxyz0123456789"),
        ("connection", b"postgresql://airflow:secret@host:5432/airflow"),
        ("airflow.keytab", KEYTAB),
        (".dockerconfigjson", DOCKER),
        ("fernet-key", NOISE),
        ("fernet-key", GENERATED),
        ("AIRFLOW__CORE__FERNET_KEY", GENERATED),
        ("gitSshKey", b"-----BEGIN OPENSSH PRIVATE KEY-----\nabcd\n-----END-----\n"),
        ("empty", b""),
    ],
)
def test_accepts_values_that_were_encoded_once(key: str, value: bytes) -> None:
    assert (0, []) == search(json.dumps(secret(key, value)))


def test_reports_a_trailing_line_break_in_a_one_line_value() -> None:
    code, (line,) = search(json.dumps(secret("GITSYNC_PASSWORD", b"s3cret!\n")))

    assert 1 == code
    assert line.startswith("airflow/s: GITSYNC_PASSWORD is one line and ends with a line break")


def test_reports_a_docker_configuration_without_auths() -> None:
    code, lines = search(json.dumps(secret(".dockerconfigjson", b'{"auth": {}}')))

    assert (1, ['airflow/s: .dockerconfigjson is not JSON with "auths"']) == (code, lines)


def test_checks_every_secret_in_a_list() -> None:
    twice = secret("a", base64.b64encode(b"something readable"))
    document = {"kind": "List", "items": [secret("a", b"fine"), twice, {**twice, "data": None}]}

    assert (1, ["airflow/s: a is base64 text: encoded twice"]) == search(json.dumps(document))


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"kind": "Secret"}'])
def test_exits_with_2_when_the_input_is_not_a_secret(text: str) -> None:
    assert (2, []) == search(text, "expected the output of: kubectl get secrets -o json\n")
