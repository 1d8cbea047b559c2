"""SSH keys from Secrets: damaged, readable by others, and replaced at run time."""

from pathlib import Path

from tests.support.git.git_sync import GitSite
from tests.support.git.ssh_server import SshServer, skip_without_sshd


def test_no_sync_fails_while_damaged_keys_are_replaced(here: GitSite, tmp_path: Path) -> None:
    skip_without_sshd()
    with SshServer(tmp_path / "ssh") as ssh:
        secret = here.folder / "secret"
        secret.mkdir()
        mounted = secret / "ssh"
        (secret / "known_hosts").write_text(ssh.known_hosts.replace("\n", "\r\n"))
        keys = [ssh.client_key, ssh.make_key(ssh.folder / "second")]
        wrapper = None

        for number, key in enumerate(keys, 2):
            ssh.authorize(*keys)
            mounted.with_name("new").write_text(key.read_text().rstrip("\n"))
            mounted.with_name("new").chmod(0o644)
            mounted.with_name("new").rename(mounted)
            ssh.authorize(key)
            commit = here.commit_revision(number)
            wrapper = wrapper or here.wrapper(
                GITSYNC_REPO=ssh.url(here.repository.folder),
                GITSYNC_SSH_KEY_FILE=str(mounted),
                GITSYNC_SSH_KNOWN_HOSTS_FILE=str(secret / "known_hosts"),
            )
            here.wait_until_shown(commit, wrapper)

        assert wrapper is not None
        assert [] == wrapper.find_events("cycle_failed"), wrapper.log()
        assert {"GITSYNC_SSH_KEY_FILE", "GITSYNC_SSH_KNOWN_HOSTS_FILE"} == {
            event["setting"] for event in wrapper.find_events("secret_repaired")
        }
        assert 0 == wrapper.terminate().code
        assert [] == list(here.tmp.glob("git-sync-wrapper-*"))
