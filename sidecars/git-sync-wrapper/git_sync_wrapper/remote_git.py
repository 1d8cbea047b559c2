"""
Runs git against the remote with git-sync's login and configuration, and explains failures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from git_sync_wrapper.flags.options import Options
from git_sync_wrapper.git import surroundings
from git_sync_wrapper.login.access import Access
from git_sync_wrapper.refusals import explain
from sidecar_runtime import child
from sidecar_runtime.fence import Fence

COOKIE_FILE = "/etc/git-secret/cookie_file"
"""git-sync's path of the cookie file; no flag changes it."""


class RemoteGit:
    """
    Runs git with all settings that it needs to reach the remote, in a separate process each time.
    """

    def __init__(self, options: Options, access: Access, environ: Mapping[str, str]) -> None:
        self._options = options
        self._access = access
        self._environ = environ

    def run(
        self,
        words: Sequence[str],
        doing: str,
        fence: Fence,
        *,
        deadline_seconds: float,
        folder: str = ".",
        configs: Sequence[tuple[str, str]] = (),
        out: Callable[[str], None] = lambda _: None,
    ) -> None:
        """
        Run one command of git.

        Args:
            words: The command and its arguments, without `git`.
            doing: The start of the error message.
            configs: Configurations in addition to git-sync's; other processes cannot read them.
            out: Receives each line of git's output.

        Raises:
            SidecarError: git failed; its reason depends on the cause.
            CycleAbandoned: The fence was revoked.
        """
        complaints = child.Kept()
        argv = [self._options.git, *words]
        command = child.Command(argv, self._surroundings(configs), folder)
        try:
            code = child.run(command, fence, deadline_seconds, child.Lines(out), complaints)
        except child.DeadlinePassed:
            raise explain("timed out", "the remote does not answer") from None
        except OSError as error:
            raise explain(str(error), "git cannot be started") from None
        if code != 0:
            raise explain(self._options.hide(str(complaints)), doing)

    def _surroundings(self, more: Sequence[tuple[str, str]]) -> dict[str, str]:
        """
        Return an environment that gives git the same configuration as git-sync would.
        """
        options = self._options
        prepared = self._access.prepare()
        keys, known_hosts = (
            prepared.flags[name] or "" for name in ("ssh-key-file", "ssh-known-hosts-file")
        )
        configs = [("core.askPass", "true")]
        if options.cookie_file:
            configs.append(("http.cookiefile", COOKIE_FILE))
        configs += [*options.configs, *prepared.git_config.items(), *more]
        return {
            **surroundings(self._environ, configs),
            **prepared.environ,
            "GIT_CONFIG_GLOBAL": self._access.git_config,
            "GIT_SSH_COMMAND": self._ssh(keys.split(":"), known_hosts),
        }

    def _ssh(self, keys: Sequence[str], known_hosts: str) -> str:
        """
        Return the ssh command that git-sync would use.
        """
        command = self._environ.get("GIT_SSH_COMMAND") or "ssh"
        command += "".join(f" -i {key}" for key in keys if key)
        if self._options.ssh_known_hosts:
            return f"{command} -o StrictHostKeyChecking=yes -o UserKnownHostsFile={known_hosts}"
        return f"{command} -o StrictHostKeyChecking=no"
