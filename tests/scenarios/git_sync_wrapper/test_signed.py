"""The documented recipe publishes only commits that are signed with a known key."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.git.git_repository import Repository
from tests.support.git.git_sync import GitSite
from tests.support.waiting import wait_until

RECIPE = Path(__file__).parents[3] / "docs/how-to/show-only-signed-commits.md"
SIGNERS = "/etc/git-signers/allowed_signers"


class Signer:
    """A person who signs commits with an SSH key."""

    def __init__(self, folder: Path, name: str) -> None:
        self.key = folder / name
        self.mail = f"{name}@example.com"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.mail, "-f", str(self.key)],
            check=True,
        )

    @property
    def line(self) -> str:
        """The line for the file of allowed signers."""
        return f'{self.mail} namespaces="git" {self.key.with_suffix(".pub").read_text()}'

    def sign(self, repository: Repository, commit: str) -> str:
        """Replace the head of the branch with a signed copy of the commit; return its hash."""
        parents = repository.git("show", "--no-patch", "--format=%P", commit).split()
        signed = repository.git(
            *("-c", "gpg.format=ssh", "-c", f"user.signingkey={self.key}"),
            *("commit-tree", "-S", f"{commit}^{{tree}}", "-m", "signed"),
            *(word for parent in parents for word in ("-p", parent)),
        )
        repository.set_branch(repository.branch, signed)
        return signed


@pytest.fixture
def command(tmp_path: Path) -> str:
    """The gate's command from the documentation, with the path of the test's allowed signers."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("signing needs ssh-keygen")
    (found,) = re.findall(r"GATE_COMMAND\n +value: (git .+)", RECIPE.read_text())
    assert SIGNERS in found
    return str(found).replace(SIGNERS, str(tmp_path / "allowed_signers"))


def test_publishes_only_commits_signed_with_a_known_key(
    here: GitSite, command: str, tmp_path: Path
) -> None:
    ada, eve = Signer(tmp_path, "ada"), Signer(tmp_path, "eve")
    signers = tmp_path / "allowed_signers"
    signers.write_text(ada.line)
    first = ada.sign(here.repository, here.repository.commit({"dag.py": "x = 1\n"}))
    wrapper = here.wrapper(GIT_SYNC_WRAPPER_GATE="command", GIT_SYNC_WRAPPER_GATE_COMMAND=command)
    here.wait_until_shown(first, wrapper)

    unsigned = here.repository.commit({"dag.py": "x = 2\n"})
    assert unsigned == wrapper.wait_for_event("revision_refused")["revision"]
    # The commit is unsigned for a moment, so the gate may refuse that copy first.
    by_eve = eve.sign(here.repository, here.repository.commit({"dag.py": "x = 3\n"}))
    wrapper.wait_for_event("revision_refused", revision=by_eve)
    assert first == here.shown()

    signers.write_text(ada.line + eve.line)  # as an updated ConfigMap
    wrapper.sighup()
    wait_until(lambda: here.shown() == by_eve, "now her key is known")
