"""
What git, ssh and git-sync say when they fail, as a reason and advice.

They give no codes, only sentences; those below are of git 2.39 to 2.47, curl 7.88 to 8.14 and
OpenSSH 9.2 to 10.0, and of git-sync itself, which is written in Go and says the same of a disk in
small letters. Anything else is reported verbatim, under `git_sync_failed`.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import NamedTuple

from sidecar_runtime.errors import SidecarError

SAID_CHARACTERS = 700
# In git-sync's errors: `Run(git fetch …): exit status 128: { stdout: "…", stderr: "fatal: …" }`.
_STDERR = re.compile(r', stderr: ("(?:[^"\\]|\\.)*")')
_LINE_END = re.compile(r"[\n\r]")
_USERINFO = re.compile(r"(?<=://)[^/@\s]*@")


class Refusal(NamedTuple):
    """
    One cause: what is said of it, and what to do.
    """

    said: str
    advice: str


# By reason, in this order: what names a cause exactly comes before what follows from it.
REFUSALS = {
    "target_full": Refusal(
        r"No space left on device|Disk quota exceeded|unable to write (file|new index)"
        r"|Out of diskspace",
        "Raise the volume's size (emptyDir: sizeLimit). What is published is untouched.",
    ),
    "out_of_memory": Refusal(
        r"signal: killed|died of signal 9|out of memory|Cannot allocate memory",
        "Raise the container's memory limit: git needs it for large repositories.",
    ),
    "host_key_changed": Refusal(
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "If the server's key was really changed, put the new one into the known_hosts file.",
    ),
    "host_key_unknown": Refusal(
        r"Host key verification failed|No \S+ host key is known for",
        "Put the server's key into the known_hosts file (dags.gitSync.knownHosts).",
    ),
    "ssh_key_invalid": Refusal(
        r"error in libcrypto|Load key .{,500}(invalid format|error)|incorrect passphrase",
        "The SSH key in the Secret is damaged or has a passphrase: store it again, as it is.",
    ),
    "ssh_key_open": Refusal(
        r"UNPROTECTED PRIVATE KEY FILE|bad permissions",
        "ssh wants a key that only its owner reads: defaultMode 0400 in the Secret's volume.",
    ),
    "ssh_user_missing": Refusal(
        r"No user exists for uid",
        "ssh needs an entry in /etc/passwd: run as 65533, or let the root be writable.",
    ),
    "ssh_key_refused": Refusal(
        r"Permission denied \(\w*publickey|Permission denied, please try again",
        "Add the public key to the server as a deploy key that may read this repository.",
    ),
    "name_unresolved": Refusal(
        r"Could not resolve host|Name or service not known|Temporary failure in name resolution"
        r"|no such host",
        "Check the host in GITSYNC_REPO, and the DNS of the cluster.",
    ),
    "proxy_refused": Refusal(
        r"Could not resolve proxy|CONNECT tunnel failed|Received HTTP code \d+ from proxy",
        "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY.",
    ),
    "tls_failed": Refusal(
        r"SSL certificate problem|certificate verif|gnutls_handshake|SSL_ERROR|unable to get local"
        r" issuer|x509: ",
        "If a company's own CA signs the traffic, point GIT_SSL_CAINFO at its bundle.",
    ),
    "remote_unreachable": Refusal(
        r"Failed to connect|Couldn't connect|Connection refused|No route to host"
        r"|Network is unreachable",
        "Check that the git server is up, and the route and the proxy to it.",
    ),
    "remote_timeout": Refusal(
        r"timed out|Timeout was reached|i/o timeout",
        "Check the route to the git server: packets that are dropped look like this.",
    ),
    "login_missing": Refusal(
        r"could not read (Username|Password)|terminal prompts disabled",
        "The server asks who is there: set GITSYNC_USERNAME and a password, or "
        "GIT_SYNC_WRAPPER_CREDENTIALS. A private repository that is misspelled looks the same.",
    ),
    "credentials_refused": Refusal(
        r"Authentication failed|HTTP Basic: Access denied|Invalid username or"
        r"|returned error: 40[13]",
        "The server does not take this user and password: look whether the token has expired, and "
        "whether it may read this repository.",
    ),
    "ref_not_found": Refusal(
        r"couldn't find remote ref|not our ref|invalid refspec|no such remote ref"
        r"|unadvertised object",
        "Check GITSYNC_REF: a branch, a tag or a full commit, as it is on the server.",
    ),
    "repository_not_found": Refusal(
        r"repository '.{,500}' not found|does not appear to be a git repository|returned error: 404"
        r"|[Rr]epository not found|The project you were looking for could not be found",
        "Check GITSYNC_REPO, and whether these credentials may see that repository.",
    ),
    "server_error": Refusal(
        r"returned error: 5\d\d|early EOF|remote end hung up|unexpected disconnect"
        r"|Connection reset|Broken pipe|Empty reply from server",
        "The git server failed; this passes by itself, or look at the server.",
    ),
    "sync_timeout": Refusal(
        r"context deadline exceeded|Run\(.{,4000}\): context",
        "Raise GITSYNC_SYNC_TIMEOUT for a large repository; else look at the network.",
    ),
    "target_denied": Refusal(
        r"Permission denied|Read-only file system|Operation not permitted",
        "Mount the volume writable here, and let the pod's fsGroup or runAsUser own it.",
    ),
}


def heard(report: str) -> str:
    """
    Return what git-sync reports, in its error-file or on a line of its log; git's own words first.
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
    Return a string that Go has quoted; where Go's escapes are not JSON's, as it is.
    """
    try:
        return str(json.loads(text))
    except ValueError:
        return text


def explain(said: str, doing: str = "git-sync failed") -> SidecarError:
    """
    Return the error for what was said.
    """
    for reason, refusal in REFUSALS.items():
        if found := re.search(refusal.said, said, re.IGNORECASE):
            text = f"{doing}: {_short(_line_around(found, said))}"
            return SidecarError(reason, text, refusal.advice)
    return SidecarError(
        "git_sync_failed",
        f"{doing}: {_short(said) or 'it said nothing'}",
        "See what it says; with GIT_SYNC_WRAPPER_LOG_LEVEL=debug all of it is logged.",
    )


def _line_around(found: re.Match[str], said: str) -> str:
    """
    Return the line that a match is on; a pattern for whole lines takes minutes for a long one.
    """
    before = max(said.rfind(end, 0, found.start()) for end in "\n\r") + 1
    after = _LINE_END.search(said, found.end())
    return said[before : after.start() if after else None]


def _short(said: str) -> str:
    """
    Return the end of what was said on one line, without who logs in.
    """
    one_line = " ".join(_USERINFO.sub("", said).split())
    return one_line[-SAID_CHARACTERS:]
