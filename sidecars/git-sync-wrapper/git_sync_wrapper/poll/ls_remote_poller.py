"""
A poll by ``git ls-remote``: for ssh, and whatever else git can talk to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from git_sync_wrapper.flags.options import Options
from git_sync_wrapper.git import surroundings
from git_sync_wrapper.login.access import Access
from git_sync_wrapper.poll import pkt
from git_sync_wrapper.refusals import explain
from sidecar_runtime import child
from sidecar_runtime.fence import CycleAbandoned, Fence

COOKIE_FILE = "/etc/git-secret/cookie_file"
"""Where git-sync wants it; no flag changes that."""
# A remote that is silent for longer than this counts as down.
DEADLINE_SECONDS = 60.0
# Of what git complains of.
LAST_LINES = 100
LINE_CHARACTERS = 4000


class LsRemote:
    """
    Asks the remote by git itself, in a process of its own for each question.
    """

    def __init__(self, options: Options, access: Access, environ: Mapping[str, str]) -> None:
        self._options = options
        self._access = access
        self._environ = environ

    def commit(self, fence: Fence) -> str:
        """
        Return the commit that the ref names now.

        Raises:
            SidecarError: The remote did not answer, or has no such ref.
            CycleAbandoned: The fence was revoked.
        """
        options = self._options
        command = [options.git, "ls-remote", "--quiet", options.repo]
        command += [options.ref, f"{options.ref}{pkt.PEELED}"]
        found: dict[str, str] = {}
        complaints: deque[str] = deque(maxlen=LAST_LINES)
        names = pkt.places(options.ref)

        def hear(line: str) -> None:  # only what was asked: a server may send anything, endlessly
            commit, _, name = line.partition("\t")
            if (name := name.removesuffix(pkt.PEELED)) in names:
                found[name] = commit

        try:
            ended = child.run(
                command,
                self._surroundings(),
                ".",
                fence=fence,
                deadline_seconds=min(DEADLINE_SECONDS, options.sync_timeout_seconds),
                out=hear,
                err=lambda line: complaints.append(line[-LINE_CHARACTERS:]),
            )
        except child.DeadlinePassed:
            raise explain("timed out", "the remote does not answer") from None
        except OSError as error:
            raise explain(str(error), "git cannot be started") from None
        if fence.is_revoked:
            raise CycleAbandoned
        if ended.code != 0:
            raise explain(options.hide("\n".join(complaints)), "the remote cannot be asked")
        if commit := pkt.choose(found, options.ref):
            return commit
        raise explain(f"couldn't find remote ref {options.ref}", "the remote has no such ref")

    def close(self) -> None:
        """
        Nothing is kept open.
        """

    def _surroundings(self) -> dict[str, str]:
        """
        Return the environment in which git finds what git-sync would tell it.
        """
        options = self._options
        prepared = self._access.prepare()
        keys, known_hosts = (
            prepared.flags[name] or "" for name in ("ssh-key-file", "ssh-known-hosts-file")
        )
        configs = [("core.askPass", "true")]
        if options.cookie_file:
            configs.append(("http.cookiefile", COOKIE_FILE))
        configs += [*options.configs, *prepared.git_config.items()]
        return {
            **surroundings(self._environ, configs),
            **prepared.environ,
            "GIT_CONFIG_GLOBAL": self._access.git_config,
            "GIT_SSH_COMMAND": self._ssh(keys.split(":"), known_hosts),
        }

    def _ssh(self, keys: Sequence[str], known_hosts: str) -> str:
        """
        Return the ssh command as git-sync makes it.
        """
        command = self._environ.get("GIT_SSH_COMMAND") or "ssh"
        command += "".join(f" -i {key}" for key in keys if key)
        if self._options.ssh_known_hosts:
            return f"{command} -o StrictHostKeyChecking=yes -o UserKnownHostsFile={known_hosts}"
        return f"{command} -o StrictHostKeyChecking=no"
