"""
Damaged secrets: their repairs, and the findings that are reported.
"""

import base64
import subprocess
from pathlib import Path

import pytest

from git_sync_wrapper.login.secret_repair import (
    Repaired,
    repair_key,
    repair_known_hosts,
    repair_password,
)

TOKEN = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
KNOWN = (
    "github.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl\n"
)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.fixture(scope="module", params=["ed25519", "rsa", "pem"])
def key(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A private key as ssh-keygen writes it, in each format."""
    return make_key(tmp_path_factory.mktemp("key") / "key", request.param)


def make_key(path: Path, kind: str, passphrase: str = "") -> str:
    options = {
        "ed25519": ["-t", "ed25519"],
        "rsa": ["-t", "rsa"],
        "pem": ["-t", "rsa", "-m", "PEM"],
    }
    command = ["ssh-keygen", "-q", "-N", passphrase, "-C", "", "-f", str(path), *options[kind]]
    subprocess.run(command, check=True, timeout=60)
    return path.read_text()


def public_key(text: str, folder: Path) -> str:
    """Return the public key from ssh-keygen, which reads private keys as ssh does."""
    path = folder / "repaired"
    path.touch(0o600)
    path.write_text(text)
    command = ["ssh-keygen", "-y", "-f", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert 0 == done.returncode, done.stderr
    return done.stdout.split()[1]


# --- passwords


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        f"{TOKEN}\n",
        "päss wörd%/+=&#\"'",
        "x",
        "deadbeefdeadbeefdeadbeefdeadbeefdeadbeef",
        "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789+/abcde=",
    ],
)
def test_keeps_a_correct_password_unchanged(text: str) -> None:
    assert Repaired(text.removesuffix("\n")) == repair_password(text.encode())


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (f"\n{TOKEN}", "blank lines"),
        (f"\n\n{TOKEN}\n", "blank lines"),
        (f"{TOKEN}\n\n", "blank lines"),
        (f"{TOKEN}\r\n", "Windows line endings"),
        (f"{TOKEN}\r", "Windows line endings"),
        (f"\ufeff{TOKEN}", "byte order mark"),
        (encoded(TOKEN), "base64"),
        (encoded(f"{TOKEN}\n"), "base64"),
        (f"{encoded(TOKEN)}\n", "base64"),
    ],
)
def test_repairs_a_password_if_that_is_safe(raw: str, said: str) -> None:
    repaired = repair_password(raw.encode())

    assert (TOKEN, ()) == (repaired.text, repaired.doubts)
    assert any(said in repair for repair in repaired.repairs)


def test_reads_a_utf_16_file_of_powershell() -> None:
    repaired = repair_password(f"{TOKEN}\r\n".encode("utf-16"))

    assert TOKEN == repaired.text
    assert 2 == len(repaired.repairs)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (encoded("correct horse battery"), "base64"),
        ("", "empty"),
        ("one\ntwo", "several lines"),
        (" secret", "blank"),
        ('{"password": "x"}', "JSON"),
        ('"secret"', "quotation marks"),
    ],
)
def test_keeps_a_suspicious_password_and_reports_a_doubt(text: str, said: str) -> None:
    repaired = repair_password(text.encode())

    assert (text, ()) == (repaired.text, repaired.repairs)
    assert [True] == [said in doubt for doubt in repaired.doubts]


def test_passes_bytes_that_are_not_utf_8_to_git_unchanged() -> None:
    repaired = repair_password(b"p\xe4ss")

    assert b"p\xe4ss" == repaired.text.encode("utf-8", "surrogateescape")


def test_findings_do_not_contain_the_secret() -> None:
    secret = encoded("correct horse battery")

    assert secret not in repr(repair_password(f"\r\n {secret}".encode()))


# --- private keys


def test_keeps_a_correct_key_unchanged(key: str) -> None:
    assert Repaired(key) == repair_key(key.encode())


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda key: key.rstrip("\n"), "newline at its end"),
        (lambda key: f"\n\n{key}", "blank lines"),
        (lambda key: f"{key}\n\n", "blank lines"),
        (lambda key: key.replace("\n", "\r\n"), "Windows line endings"),
        (lambda key: key.rstrip("\n").replace("\n", "\r\n"), "newline at its end"),
        (encoded, "base64"),
        (lambda key: encoded(key.replace("\n", "\r\n")), "base64"),
        (lambda key: encoded(encoded(key)), "base64"),
        (lambda key: "\n".join(base64.encodebytes(key.encode()).decode().splitlines()), "base64"),
        (lambda key: key.replace("\n", "\\n"), r"\n"),
        (lambda key: key.rstrip("\n").replace("\n", " "), "lines were reformatted"),
        (lambda key: key.replace("\n", "\n    "), "lines were reformatted"),
        (lambda key: key.replace("\n", " \n"), "lines were reformatted"),
        (lambda key: key.replace("\n", "\n\n"), "lines were reformatted"),
        (lambda key: key.replace("\n", ""), "lines were reformatted"),
        (lambda key: f"# my key\n{key}", "lines were reformatted"),
        (lambda key: f"\ufeff{key}", "byte order mark"),
    ],
)
def test_repairs_a_damaged_key(key: str, damage: object, said: str, tmp_path: Path) -> None:
    repaired = repair_key(damage(key).encode())  # type: ignore[operator]

    assert any(said in repair for repair in repaired.repairs), repaired.repairs
    assert () == repaired.doubts
    assert public_key(key, tmp_path) == public_key(repaired.text, tmp_path)


@pytest.mark.parametrize("kind", ["ed25519", "pem"])
def test_reports_a_key_with_a_passphrase_and_keeps_its_headers(kind: str, tmp_path: Path) -> None:
    text = make_key(tmp_path / "key", kind, "passphrase")

    repaired = repair_key(text.encode())

    assert () == repaired.repairs
    assert ("it has a passphrase, which cannot be entered here",) == repaired.doubts
    headers = [line for line in text.splitlines() if ":" in line]
    lines = repair_key(text.replace("\n", " \n").encode()).text.splitlines()
    assert headers == [line for line in lines if ":" in line]
    assert kind == "ed25519" or [*headers, ""] == lines[1:4]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("\n", "empty"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me@host\n", "public key"),
        ("PuTTY-User-Key-File-3: ssh-ed25519\n", "PuTTY"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz\n", "end of the key"),
        ("-----BEGIN RSA PRIVATE KEY-----\nb3Ble\n-----END RSA PRIVATE KEY-----\n", "damaged"),
        ("hunter2", "not a private key"),
    ],
)
def test_reports_content_that_is_not_a_private_key(text: str, said: str) -> None:
    repaired = repair_key(text.encode())

    assert text == repaired.text
    assert [True] == [said in doubt for doubt in repaired.doubts]


# --- known_hosts


def test_keeps_correct_known_hosts_unchanged() -> None:
    assert Repaired(KNOWN) == repair_known_hosts(KNOWN.encode())
    assert Repaired(KNOWN.rstrip("\n")) == repair_known_hosts(KNOWN.rstrip("\n").encode())


@pytest.mark.parametrize("raw", [encoded(KNOWN), KNOWN.replace("\n", "\r\n"), f"\ufeff{KNOWN}"])
def test_repairs_known_hosts(raw: str) -> None:
    repaired = repair_known_hosts(raw.encode())

    assert (KNOWN, 1, ()) == (repaired.text, len(repaired.repairs), repaired.doubts)


@pytest.mark.parametrize("text", ["", "# nobody\n", "github.com\n"])
def test_reports_known_hosts_without_a_host_key(text: str) -> None:
    assert ("it contains no host key",) == repair_known_hosts(text.encode()).doubts
