"""
The keys and known hosts that ssh receives.
"""

import stat
import subprocess
from pathlib import Path

import pytest

from git_sync_wrapper.login.secret import Cleaner
from git_sync_wrapper.login.ssh_files import PINNED, SshFiles
from sidecar_runtime.errors import SidecarError
from tests.runtime.recording import Log
from tests.support.git.ssh_server import SshServer, skip_without_sshd
from tests.support.raising import raised

KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
KNOWN = f"git.example.com ssh-ed25519 {KEY}\n"

# As published by the hosts; the file in the package lists the sources.
PUBLISHED = {
    "github.com": {
        "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU",
        "SHA256:p2QAMXNIC1TJYWeIOttrVc98/R1BUFWu3/LiyKgUfQM",
        "SHA256:uNiVztksCsDhcc0u9e8BujQXVUpKZIDTMczCvj3tD2s",
    },
    "gitlab.com": {
        "SHA256:eUXGGm1YGsMAS7vkcx6JOJdOGHPem5gQp4taiCfCLB8",
        "SHA256:HbW3g8zUjNSksFbqTiUWPWg2Bq1x8xdGUrliXFzSnUw",
        "SHA256:ROQFvPThGrW4RuWLoL9tq9I9zJ42fK4XywyRtbOz/EQ",
    },
    "bitbucket.org": {
        "SHA256:ybgmFkzwOSotHTHLJgHO0QN8L0xErw6vd0VhFA9m3SM",
        "SHA256:FC73VB6C4OQLSCrjEayhMp9UMxS97caD/Yyi2bhW/J0",
        "SHA256:46OSHA1Rmj8E8ERTC6xkNcmGOw9oFxYr0WF6zWW8l1E",
    },
    "ssh.dev.azure.com": {"SHA256:ohD8VZEXGWo6Ez8GSEJQ9WpafgLFsOfLOtGGQCQo6Og"},
    "git-codecommit.us-east-1.amazonaws.com": {
        "SHA256:eLMY1j0DKA4uvDZcl/KgtIayZANwX6t8+8isPtotBoY"
    },
}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A private key as a Secret mounts it: with the right mode, in a separate folder."""
    skip_without_sshd()
    folder = tmp_path / "git-secret"
    folder.mkdir()
    return SshServer.make_key(folder / "ssh")


@pytest.fixture
def files(tmp_path: Path, key: Path) -> SshFiles:
    return make(tmp_path, [key])


def make(tmp_path: Path, keys: list[Path]) -> SshFiles:
    private = tmp_path / "private"
    private.mkdir(mode=0o700, exist_ok=True)
    known_hosts = str(tmp_path / "git-secret/known_hosts")
    return SshFiles([str(key) for key in keys], known_hosts, str(private), Cleaner())


def fingerprint(path: str) -> str:
    command = ["ssh-keygen", "-l", "-f", path]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=30
    ).stdout.split()[1]


def test_uses_a_correct_key_in_place(files: SshFiles, key: Path, log: Log) -> None:
    assert [str(key)] == files.keys()
    assert [] == log.events("secret_repaired")


def test_uses_a_repaired_copy_of_a_damaged_key(files: SshFiles, key: Path, log: Log) -> None:
    expected, text = fingerprint(str(key)), key.read_text()
    key.write_text(text.replace("\n", "\r\n"))

    (copy,) = files.keys()

    assert str(key) != copy and text == Path(copy).read_text()
    assert 0o600 == stat.S_IMODE(Path(copy).stat().st_mode)
    assert expected == fingerprint(copy)
    assert [copy] == files.keys()
    assert {"GITSYNC_SSH_KEY_FILE"} == {event["setting"] for event in log.events("secret_repaired")}


def test_copies_a_key_that_other_users_can_read(files: SshFiles, key: Path) -> None:
    """ssh would refuse it: "UNPROTECTED PRIVATE KEY FILE"."""
    key.chmod(0o644)

    (copy,) = files.keys()

    assert str(key) != copy
    assert key.read_text() == Path(copy).read_text()


def test_updates_the_copy_after_a_rotation(files: SshFiles, key: Path) -> None:
    key.write_text(key.read_text().rstrip("\n"))
    files.keys()
    SshServer.make_key(key)
    fresh = key.read_text()
    key.write_text(fresh.rstrip("\n"))

    (copy,) = files.keys()

    assert fresh == Path(copy).read_text()


def test_makes_a_separate_copy_of_each_key(tmp_path: Path, key: Path) -> None:
    other = SshServer.make_key(key.with_name("other"))
    for path in (key, other):
        path.write_text(path.read_text().rstrip("\n"))

    copies = make(tmp_path, [key, other]).keys()

    assert 2 == len({Path(copy).read_text() for copy in copies})


def test_leaves_a_missing_key_to_ssh(tmp_path: Path, key: Path) -> None:
    missing = key.with_name("nothing")

    assert [str(missing)] == make(tmp_path, [missing]).keys()


def test_reports_a_key_that_cannot_be_read(tmp_path: Path, key: Path) -> None:
    folder = key.with_name("folder")
    folder.mkdir()

    error = raised(SidecarError, make(tmp_path, [folder]).keys)

    assert ("secret_unreadable", True) == (error.reason, str(folder) in error.message)


def test_reports_a_public_key_given_as_a_private_one(files: SshFiles, key: Path, log: Log) -> None:
    public = key.with_name("ssh.pub").read_text()
    key.write_text(public)

    files.keys()

    (doubt,) = log.events("secret_doubted")
    assert "public key" in doubt["finding"]
    assert public not in log.text()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_prefers_and_repairs_given_known_hosts(files: SshFiles, tmp_path: Path, end: str) -> None:
    assert PINNED == files.known_hosts()
    own = tmp_path / "git-secret/known_hosts"
    own.write_bytes(KNOWN.replace("\n", end).encode())

    found = files.known_hosts()

    assert KNOWN == Path(found).read_text()
    assert (end == "\n") == (str(own) == found)


@pytest.mark.parametrize("host", PUBLISHED)
def test_pinned_keys_match_the_published_fingerprints(host: str) -> None:
    skip_without_sshd()
    command = ["ssh-keygen", "-l", "-F", host, "-f", PINNED]
    found = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    lines = [line.split() for line in found.splitlines() if not line.startswith("#")]

    assert PUBLISHED[host] == {words[-1] for words in lines}


def test_pins_no_other_hosts() -> None:
    lines = [line for line in Path(PINNED).read_text().splitlines() if not line.startswith("#")]

    assert {*PUBLISHED, "[ssh.github.com]:443", "vs-ssh.visualstudio.com"} == {
        host for line in lines for host in line.split()[0].split(",")
    }


def test_names_each_repaired_key_once(tmp_path: Path, key: Path, log: Log) -> None:
    other = key.with_name("other")
    other.write_bytes(key.read_bytes().replace(b"\n", b"\r\n"))
    files = make(tmp_path, [key, other])

    for _ in range(3):
        files.keys()

    assert [str(other)] == [
        one["setting"].partition(", ")[2] for one in log.events("secret_repaired")
    ]
