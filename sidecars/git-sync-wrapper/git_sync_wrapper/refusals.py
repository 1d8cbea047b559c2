"""
Map error messages of git, ssh and git-sync to a reason and advice.

They report sentences, not codes. The patterns below match git 2.39 to 2.47, curl 7.88 to 8.14,
OpenSSH 9.2 to 10.0, and git-sync itself, which is written in Go and reports disk errors in lower
case. Any other message is reported verbatim, with the reason `git_sync_failed`.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import NamedTuple

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.settings import without_password
from sidecar_runtime.volume.errors import DENIED_ADVICE, FULL_ADVICE

SAID_CHARACTERS = 700
# git-sync's errors: `Run(git fetch …): exit status 128: { stdout: "…", stderr: "fatal: …" }`.
_STDERR = re.compile(r', stderr: ("(?:[^"\\]|\\.)*")')
_LINE_END = re.compile(r"[\n\r]")
# Messages of GnuTLS and OpenSSL about a connection that the server or a firewall has cut.
_CUT = (
    r"non-properly terminated|Error in the (pull|push) function|unexpected eof while reading"
    r"|SSL_ERROR_(SYSCALL|ZERO_RETURN)"
)


class Refusal(NamedTuple):
    """
    One cause: the pattern of its messages, and advice.
    """

    said: str
    advice: str


# By reason. The first match wins: an exact cause comes before messages that only follow from it.
REFUSALS = {
    "target_full": Refusal(
        r"No space left on device|Disk quota exceeded|unable to write (file|new index)"
        # git hides the cause. It has just created files in the folder above, so no inode is left.
        r"|Out of diskspace|unable to create directory for",
        FULL_ADVICE,
    ),
    "out_of_memory": Refusal(
        r"signal: killed|died of signal 9|out of memory|Cannot allocate memory",
        "Raise the container's memory limit: git needs it for large repositories.",
    ),
    "host_key_changed": Refusal(
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "Verify the server's new key; then replace the old one in the known_hosts file.",
    ),
    "host_key_unknown": Refusal(
        r"Host key verification failed|No \S+ host key is known for",
        "Add the server's key to the known_hosts file (dags.gitSync.knownHosts).",
    ),
    "ssh_key_invalid": Refusal(
        r"error in libcrypto|Load key .{,500}(invalid format|error)|incorrect passphrase",
        "The SSH key in the Secret is damaged or has a passphrase: store an intact one without it.",
    ),
    "ssh_key_exposed": Refusal(
        r"UNPROTECTED PRIVATE KEY FILE|bad permissions",
        "Set defaultMode 0400 in the Secret's volume: ssh refuses a key that others can read.",
    ),
    "ssh_user_missing": Refusal(
        r"No user exists for uid",
        "ssh needs an entry in /etc/passwd: use the image unchanged, or run as UID 65533.",
    ),
    "ssh_key_refused": Refusal(
        # ssh lists what the server would accept, in the server's order.
        r"Permission denied \([a-z0-9@.,-]*(publickey|password|keyboard-interactive|gssapi)"
        r"|Permission denied, please try again",
        "Add the public key to the server as a deploy key with read access to this repository.",
    ),
    "name_unresolved": Refusal(
        r"Could not resolve host|Name or service not known|Temporary failure in name resolution"
        r"|no such host",
        "Check the host in GITSYNC_REPO and the cluster's DNS.",
    ),
    "proxy_refused": Refusal(
        r"Could not resolve proxy|CONNECT tunnel failed|Received HTTP code \d+ from proxy",
        "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY.",
    ),
    "tls_failed": Refusal(
        r"SSL certificate problem|certificate verif|unable to get local issuer|x509: |SSL_ERROR_SSL"
        rf"|(gnutls(_|, )handshake|SSL routines)(?!.{{,60}}({_CUT}))",
        "If a company CA signs the traffic, set GIT_SSL_CAINFO to its bundle.",
    ),
    "remote_unreachable": Refusal(
        r"Failed to connect|Couldn't connect|Connection refused|No route to host"
        r"|Network is unreachable",
        "Check that the git server is up, and check the route and the proxy to it.",
    ),
    "remote_timeout": Refusal(
        r"timed out|Timeout was reached|i/o timeout",
        "Check the route to the git server for dropped packets.",
    ),
    "login_missing": Refusal(
        r"could not read (Username|Password)|terminal prompts disabled",
        "The server requires a login: set GITSYNC_USERNAME and a password, or "
        "GIT_SYNC_WRAPPER_CREDENTIALS. A misspelled repository can cause the same error.",
    ),
    "credentials_refused": Refusal(
        r"Authentication failed|HTTP Basic: Access denied|Invalid username or"
        r"|returned error: 40[13]",
        "The server refuses this user and password: check that the token has not expired and that "
        "it may read this repository. If they are environment variables, restart the pod after "
        "changing the Secret.",
    ),
    "submodule_missing": Refusal(
        r"submodule path '.{,500}', but it did not contain",
        "Push the submodule's commit to its server, or correct the commit that records it.",
    ),
    "ref_not_found": Refusal(
        r"couldn't find remote ref|not our ref|invalid refspec|no such remote ref"
        r"|unadvertised object",
        "Check GITSYNC_REF: it must be a branch, a tag or a full commit hash on the server.",
    ),
    "repository_not_found": Refusal(
        r"repository '.{,500}' not found|does not appear to be a git repository|returned error: 404"
        r"|[Rr]epository not found|The project you were looking for could not be found",
        "Check GITSYNC_REPO, and check that these credentials may read the repository.",
    ),
    "throttled": Refusal(
        r"returned error: (429|503)",
        "The request is retried; if it keeps failing, check the git server. For a large fleet, set "
        "a longer period.",
    ),
    "server_error": Refusal(
        r"returned error: 5\d\d|early EOF|remote end hung up|unexpected disconnect"
        r"|Connection closed by"
        r"|(?m:^remote: .{,500}(out of memory|No space left))"
        rf"|Connection reset|Broken pipe|Empty reply from server|{_CUT}",
        "The git server failed. The request is retried; if it keeps failing, check the server.",
    ),
    "sync_timeout": Refusal(
        r"context deadline exceeded|Run\(.{,4000}\): context",
        "For a large repository, raise GITSYNC_SYNC_TIMEOUT; otherwise check the network.",
    ),
    "target_denied": Refusal(
        r"Permission denied|Read-only file system|Operation not permitted",
        DENIED_ADVICE,
    ),
}


_UNREADABLE_PROXY = re.compile(r"Unsupported proxy syntax in [^\n]*")
# Messages that git relays, and the reasons that only this machine can have.
_OF_SERVER = re.compile(r"^remote: .*$", re.MULTILINE)
_LOCAL = {"target_full", "out_of_memory", "target_denied"}


def heard(report: str) -> str:
    """
    Return the error in git-sync's error-file or in a line of its log, with git's own output first.
    """
    error = report
    with suppress(ValueError):
        fields = json.loads(report)
        if isinstance(fields, dict):
            error = f"{fields.get('Err', '')} {fields.get('Msg', '')}"
    said = [_unquoted(found[1]) for found in _STDERR.finditer(error)]
    return "\n".join([*said, _STDERR.sub("", error)])


def _unquoted(text: str) -> str:
    """
    Decode a string that Go has quoted; return it unchanged if Go's escapes are not valid JSON.
    """
    try:
        return str(json.loads(text))
    except ValueError:
        return text


def explain(said: str, doing: str = "git-sync failed") -> SidecarError:
    """
    Return the error for an error message.
    """
    for reason, refusal in REFUSALS.items():
        where = _OF_SERVER.sub("", said) if reason in _LOCAL else said
        if found := re.search(refusal.said, where, re.IGNORECASE):
            text = f"{doing}: {_short(_line_around(found, where))}"
            return SidecarError(reason, text, refusal.advice)
    return SidecarError(
        "git_sync_failed",
        f"{doing}: {_short(said) or 'no error message'}",
        "Read the quoted error; set GIT_SYNC_WRAPPER_LOG_LEVEL=debug to log all output.",
    )


def _line_around(found: re.Match[str], said: str) -> str:
    """
    Return the line that contains a match. A regex for whole lines takes minutes on a long line.
    """
    before = max(said.rfind(end, 0, found.start()) for end in "\n\r") + 1
    after = _LINE_END.search(said, found.end())
    return said[before : after.start() if after else None]


def _short(said: str) -> str:
    """
    Return the end of a message as one line, without user and password in URLs.
    """
    # git quotes a proxy URL that it cannot read, which may begin with a password.
    without = without_password(_UNREADABLE_PROXY.sub("Unsupported proxy syntax", said))
    one_line = " ".join(without.split())
    return one_line[-SAID_CHARACTERS:]
