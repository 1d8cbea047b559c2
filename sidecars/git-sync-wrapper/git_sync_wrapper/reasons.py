"""
The one table of failures: how messages of git, ssh and git-sync tell the cause, and
what to do.

They report sentences, not codes. The patterns match git 2.39 to 2.47, curl 7.88 to
8.14, OpenSSH 9.2 to 10.0, and git-sync itself, which is written in Go and reports disk
errors in lower case. Any other message is quoted, with the reason `git_sync_failed`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.settings import without_password
from sidecar_runtime.volume.files import DENIED_ADVICE, FULL_ADVICE, LINK_ADVICE

SAID_CHARACTERS = 700
# Messages of GnuTLS and OpenSSL about a connection that the server or a firewall has
# cut.
_CUT = (
    r"non-properly terminated|Error in the (pull|push) function|unexpected eof while reading"
    r"|SSL_ERROR_(SYSCALL|ZERO_RETURN)"
)


class Reason(NamedTuple):
    """
    One cause: what to do about it, and the pattern of its messages; one that matches
    none if the wrapper itself finds it.
    """

    advice: str
    said: str = r"(?!)"


# The first match wins: an exact cause comes before messages that only follow from it.
REASONS = {
    "git_too_old": Reason(
        "Use the image unchanged, or set GITSYNC_GIT to a newer git.",
        # of other remotes, the X in X::ADDRESS and X://ADDRESS is wrong
        r"^usage: git|not in a git directory|key does not contain a section: (un)?(set|get|list)$"
        r"|git: '(remote-https?'|(?!remote-)\S+) is not a git command",
    ),
    "git_sync_usage": Reason(
        "Correct the flag or variable; see `git-sync --man`.",
        r"^(unknown (shorthand )?flag|invalid (flag|argument)|required flag|(?-i:FATAL: invalid))"
        r"|'remote-\S+ is not a git command|URL rejected|bad/illegal format"
        r"|does not contain a section|invalid filter-spec|git executable not found"
        r"|git cannot be started: .Errno 2.",
    ),
    "target_full": Reason(
        FULL_ADVICE,
        r"No space left on device|Disk quota exceeded|unable to write (file|new index)"
        # git hides the cause. It has just created files in the folder above, so no
        # inode is left.
        r"|Out of diskspace|unable to create directory for",
    ),
    "out_of_memory": Reason(
        "Raise the container's memory limit.",
        r"signal: killed|died of signal 9|out of memory|Cannot allocate memory",
    ),
    "host_key_changed": Reason(
        "Verify the server's new key, and replace the old one in known_hosts.",
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
    ),
    "host_key_unknown": Reason(
        "Add the server's key to known_hosts (dags.gitSync.knownHosts).",
        r"Host key verification failed|No \S+ host key is known for",
    ),
    "ssh_key_invalid": Reason(
        "Store an SSH key that is intact and has no passphrase.",
        r"error in libcrypto|Load key .{,500}(invalid format|error)|incorrect passphrase",
    ),
    "ssh_key_refused": Reason(
        "Add the public key to the server, with read access to this repository.",
        # ssh lists what the server would accept, in the server's order.
        r"Permission denied \([a-z0-9@.,-]*(publickey|password|keyboard-interactive|gssapi)"
        r"|Permission denied, please try again|Public key authentication failed",
    ),
    "name_unresolved": Reason(
        "Check the host in GITSYNC_REPO and the cluster's DNS.",
        r"Could not resolve host|Name or service not known|Temporary failure in name resolution"
        r"|no such host",
    ),
    "proxy_refused": Reason(
        "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY.",
        r"Could not resolve proxy|CONNECT tunnel failed|Received HTTP code \d+ from proxy"
        r"|Proxy CONNECT aborted|returned error: 407",
    ),
    "tls_failed": Reason(
        "If a company CA signs the traffic, set GIT_SSL_CAINFO to its bundle.",
        r"SSL certificate problem|certificate (verif|subject name)|unable to get local issuer"
        r"|x509: |SSL_ERROR_SSL"
        rf"|(gnutls(_|, )handshake|SSL routines)(?!.{{,60}}({_CUT}))",
    ),
    "remote_unreachable": Reason(
        "Check the git server, the route and the proxy to it.",
        r"Failed to connect|Couldn't connect|Connection refused|No route to host"
        r"|Network is unreachable",
    ),
    "remote_timeout": Reason(
        "Check the route to the git server for dropped packets.",
        r"timed out|Timeout was reached|i/o timeout",
    ),
    "redirect_refused": Reason(
        "If you trust that address, set it: in GITSYNC_REPO, GITSYNC_ASKPASS_URL or .gitmodules.",
        r"returned error: 30\d",
    ),
    "login_missing": Reason(
        "Set GITSYNC_USERNAME and a password, or GITSYNC_CREDENTIAL for a submodule's server. A "
        "misspelled repository can be the cause, too.",
        r"could not read (Username|Password)|terminal prompts disabled",
    ),
    "credentials_refused": Reason(
        "Check that the token has not expired and that it may read this repository. Restart the "
        "pod after changing a Secret of variables.",
        # The server's own words precede these, without the URL.
        r"Authentication failed|returned error: 40[13]",
    ),
    "submodule_missing": Reason(
        "Push the submodule's commit, or correct the commit that records it.",
        r"submodule path '.{,500}', but it did not contain",
    ),
    "ref_not_found": Reason(
        "Check that GITSYNC_REF still exists: a branch, a tag or a full commit hash.",
        r"couldn't find remote ref|not our ref|invalid refspec|no such remote ref"
        r"|unadvertised object",
    ),
    "repository_not_found": Reason(
        "Check GITSYNC_REPO, and that these credentials may read it.",
        r"repository '.{,500}' not found|does not appear to be a git repository"
        r"|returned error: 4(04|10)|[Rr]epository not found"
        r"|The project you were looking for could not be found",
    ),
    "throttled": Reason(
        "If it keeps failing, check the git server. For a large fleet, set a longer period.",
        r"returned error: (429|503)",
    ),
    "not_a_git_server": Reason(
        "Open the URL in a browser: a login page, a portal or a proxy answers there.",
        r"is this a git repository\?|invalid server response|bad line length character"
        r"|Received HTTP/0\.9",
    ),
    "server_error": Reason(
        "If it keeps failing, check the git server.",
        r"returned error: 5\d\d|early EOF|remote end hung up|unexpected disconnect"
        r"|Connection closed by|transfer closed|bytes missing"
        r"|^(fatal: )?remote( error)?: .{,500}(out of memory|No space left)"
        rf"|Connection reset|Broken pipe|Empty reply from server|{_CUT}",
    ),
    "sync_timeout": Reason(
        "For a large repository, raise GITSYNC_SYNC_TIMEOUT; otherwise check the network.",
        r"context deadline exceeded|Run\(.{,4000}\): context",
    ),
    "target_denied": Reason(
        DENIED_ADVICE,
        r"Permission denied|Read-only file system|Operation not permitted",
    ),
    "git_sync_failed": Reason(
        "Read the quoted error; with GIT_SYNC_WRAPPER_LOG_LEVEL=debug all of it is logged."
    ),
    # What the wrapper finds.
    "access_denied": Reason(
        "Allow codecommit:GitPull on the repository in the policy of the role (and in the "
        "repository's account), and check the node's clock."
    ),
    "askpass_failed": Reason("Check the service at GITSYNC_ASKPASS_URL."),
    "git_sync_unusable": Reason(
        "Check GIT_SYNC_WRAPPER_GIT_SYNC and the container's memory and process limits."
    ),
    "filter_missing": Reason(
        "Commit such files as they are, or set the filter in GITSYNC_GIT_CONFIG, with an image "
        "that has its program."
    ),
    "hook_failed": Reason(
        "Check the hook's output in the log. A daemon repeats it; a one-shot fails with it."
    ),
    "link_blocked": Reason(LINK_ADVICE),
    "private_folder_failed": Reason(
        "Mount a writable /tmp with free space (an emptyDir), or set TMPDIR."
    ),
    "region_missing": Reason("Set AWS_REGION."),
    "secret_encoded": Reason(
        "Put the text itself into the Secret's stringData, or encode it once."
    ),
    "secret_malformed": Reason(
        "Check which key of the Secret is mounted: a password or token is one line."
    ),
    "secret_unreadable": Reason(
        "Check the Secret's mount and key, and let the group read it."
    ),
    "work_folder_foreign": Reason(
        "Mount nothing there, and the volume read-only for everybody else."
    ),
    "target_incomplete": Reason(
        "If this repeats, find out which process removes files."
    ),
    "nothing_published": Reason("Wait for the first cycle."),
    "published_elsewhere": Reason(
        "If another pod holds the lock, end it, or give each its own volume; else wait for the "
        "first commit for the new settings."
    ),
    "files_damaged": Reason(
        "Wait until they are restored, and find out what writes to the volume."
    ),
}

# Only this machine can have these, whatever a server says.
LOCAL = {"target_full", "out_of_memory", "target_denied"}
# These may come from a login that is wrong, or missing; `logins.Access` knows which was
# sent.
LOGIN = {
    "login_missing",
    "credentials_refused",
    "access_denied",
    "ssh_key_refused",
    "repository_not_found",
}
# When another reason repeats, git-sync's repository may be what is wrong.
KEPT = LOCAL | {
    "git_too_old",
    "git_sync_usage",
    "git_sync_unusable",
    "private_folder_failed",
    "throttled",
    "redirect_refused",
    "server_error",
    "sync_timeout",
    "access_denied",
    "target_incomplete",
}

SERVER = "remote: "
RELAYED = (SERVER, "fatal: remote error: ")
# Over ssh, a server's own errors have no prefix, and git adds this.
_THEY_ENDED = "Could not read from remote repository"
# A server chooses its words, and whoever can push chooses names.
_FOREIGN = re.compile(rf"(?<=\s)'.*'|^({'|'.join(RELAYED)}).*")
_SUBMODULE = "submodule path '"
_UNREADABLE_PROXY = re.compile(r"Unsupported proxy syntax in [^\n]*")


def failure(reason: str, message: str) -> SidecarError:
    """
    Return the error for a reason of the table.
    """
    advice = REASONS[reason].advice
    if _SUBMODULE in message:
        advice = f"This is about the submodule, not GITSYNC_REPO. {advice}"
    return SidecarError(reason, message, advice)


def explain(said: str, doing: str) -> SidecarError:
    """
    Return the error for what git, ssh or git-sync said: what the server said first, the
    line that tells the cause, and whose it is.
    """
    lines = said.splitlines()
    theirs = [line for line in lines if line.startswith(RELAYED)]
    own = [line for line in lines if not line.startswith(RELAYED)]
    # A server may say anything: its words count where git itself names no cause.
    reason, cause = _cause(own) or _cause(theirs) or ("git_sync_failed", lines)
    if reason == "target_full" and _THEY_ENDED in said:
        reason = "server_error"
    told = [x for x in theirs if x.startswith(SERVER) and x.isprintable()]
    whose = [x for x in lines if _SUBMODULE in x][-1:]
    quoted = "\n".join(dict.fromkeys([*told, *cause, *whose]))
    return failure(reason, f"{doing}: {_short(quoted) or 'no error message'}")


def _cause(lines: list[str]) -> tuple[str, list[str]] | None:
    """
    Return the first reason of the table that a line names, and that line.
    """
    for reason, one in REASONS.items():
        for line in lines:
            text = _FOREIGN.sub("''", line) if reason in LOCAL else line
            if re.search(one.said, text, re.IGNORECASE):
                return reason, [line]
    return None


def heard(report: str) -> str:
    """
    Return an error-file or a line of git-sync's log with the line breaks of what it
    quotes.
    """
    return re.sub(r'(?<!\\)\\+[ntr]|stderr: "|" }', "\n", report.replace('\\"', '"'))


def _short(said: str) -> str:
    """
    Return the end of a message as one line, without user and password in URLs.
    """
    # git quotes a proxy URL that it cannot read, which may begin with a password.
    without = without_password(_UNREADABLE_PROXY.sub("Unsupported proxy syntax", said))
    # curl's: each failure would look new
    without = re.sub(r" after \d+ ms", "", without)
    return " ".join(without.split())[-SAID_CHARACTERS:]
