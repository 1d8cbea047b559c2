"""SSH keys from Secrets: damaged, readable by others, and replaced at run time."""

from pathlib import Path

from tests.support.git.git_sync import GitSite
from tests.support.git.ssh_server import SshServer, skip_without_sshd
from tests.support.replacing import replace


def test_follows_damaged_keys_that_are_replaced_once_the_host_is_known(
    here: GitSite, tmp_path: Path
) -> None:
    skip_without_sshd()
    secret = here.folder / "secret"
    secret.mkdir()
    mounted = secret / "ssh"
    known = secret / "known_hosts"

    def mount(key: Path) -> None:
        replace(mounted, key.read_text().rstrip("\n"))

    with SshServer(tmp_path / "ssh") as ssh:
        first = ssh.client_key
        second = ssh.make_key(ssh.folder / "second")
        mount(first)
        wrapper = here.wrapper(
            GITSYNC_REPO=ssh.url(here.repository.folder),
            GITSYNC_SSH_KEY_FILE=str(mounted),
            GITSYNC_SSH_KNOWN_HOSTS_FILE=str(known),
            GIT_SSH_COMMAND="ssh -o HostKeyAlias=github.com",
        )
        # The built-in keys of the forges are used, and this server has another one.
        failed = wrapper.wait_for_event("cycle_failed")
        assert "host_key_changed" == failed["reason"], failed
        replace(known, "")
        wrapper.wait_for_event("cycle_failed", reason="host_key_unknown")
        entry = ssh.known_hosts.replace(ssh.known_hosts.split()[0], "github.com")
        replace(known, entry.replace("\n", "\r\n"))
        ssh.authorize()
        refused = wrapper.wait_for_event("cycle_failed", reason="ssh_key_refused")
        assert f"({mounted}, from GITSYNC_SSH_KEY_FILE)" in refused["error"]
        replace(mounted, first.read_text()[:50])
        wrapper.wait_for_event("cycle_failed", reason="ssh_key_invalid")
        for number, key in enumerate((first, second), 2):
            mount(key)
            ssh.authorize(key)
            here.wait_until_shown(here.commit_revision(number), wrapper)
        ssh.stop()
        wrapper.wait_for_event("cycle_failed", reason="remote_unreachable")

        assert 0 == wrapper.terminate().code
        assert [] == list(here.tmp.glob("git-sync-wrapper-*"))
