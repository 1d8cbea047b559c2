"""
Reasons for those messages of git, ssh and git-sync that the scenarios do not provoke.
"""

import json

import pytest

from git_sync_wrapper.reasons import explain, heard

# By line: the reason, and the message; a slash stands for a line break. curl has GnuTLS,
# as in Debian, or OpenSSL.
MESSAGES = """\
credentials_refused: The requested URL returned error: 401
git_sync_usage: unknown flag: --frob
git_sync_usage: error: key does not contain a section: nosection
git_sync_usage: fatal: invalid filter-spec 'garbage'
git_sync_usage: FATAL: git executable not found
git_sync_usage: git cannot be started: [Errno 2] No such file or directory: '/nope'
git_too_old: error: key does not contain a section: set
git_too_old: git: 'remote-https' is not a git command. See 'git --help'.
git_too_old: git: 'sparse-checkout' is not a git command. See 'git --help'.
# No other git has it either.
git_sync_usage: git: 'remote-codecommit' is not a git command. See 'git --help'.
git_sync_usage: fatal: unable to access 'https://x:99999/': URL rejected: Port number was
git_sync_usage: fatal: unable to access 'https://x:99999/': URL using bad/illegal format
proxy_refused: fatal: unable to access 'https://x/': Proxy CONNECT aborted
target_full: fatal: sha1 file 'tmp_pack_x' write error. Out of diskspace
target_full: unable to create directory for '.git/worktrees/1/logs/HEAD': No such file
# What the server says about itself.
server_error: remote: fatal: Out of memory, malloc failed (tried to allocate 9 bytes)
server_error: remote: fatal: unable to create file: No space left on device
server_error: fatal: remote error: write: No space left on device
server_error: error: No space left on device / Could not read from remote repository.
# It chooses no reason where git itself names one.
server_error: remote: git@x: Permission denied (publickey). / fatal: early EOF
name_unresolved: fatal: remote error: Host key verification failed / fatal: no such host
# Who can push a name fills no disk.
git_sync_failed: fatal: No url found for submodule path 'No space left on device'
target_full: error: cannot write 'a' to 'b': No space left on device
# The consequence, early EOF, would suggest another cause.
out_of_memory: error: index-pack died of signal 9 / fatal: early EOF
# no disk is full: remove nothing
server_error: fatal: write error: Broken pipe
# A cut connection says nothing about the certificate.
server_error: gnutls_handshake() failed: The TLS connection was non-properly terminated.
server_error: GnuTLS, handshake failed: Error in the push function.
server_error: GnuTLS recv error (-54): Error in the pull function.
server_error: OpenSSL SSL_connect: SSL_ERROR_SYSCALL in connection to x:443
server_error: OpenSSL SSL_connect: SSL_ERROR_ZERO_RETURN in connection to x:443
server_error: TLS connect error: error:0A000126:SSL routines::unexpected eof while reading
server_error: fatal: unable to access 'x': transfer closed with 470 bytes remaining to read
server_error: fatal: unable to access 'x': end of response with 470 bytes missing
server_error: kex_exchange_identification: Connection closed by remote host
throttled: The requested URL returned error: 503
ssh_key_refused: git@h: Permission denied (gssapi-with-mic,publickey).
ssh_key_refused: git@h: Permission denied (keyboard-interactive).
ssh_key_refused: git@ssh.dev.azure.com: Permission denied (password).
tls_failed: gnutls_handshake() failed: An unexpected TLS packet was received.
tls_failed: GnuTLS, handshake failed: Handshake failed
tls_failed: OpenSSL/3.0.19: error:0A00010B:SSL routines::wrong version number
tls_failed: OpenSSL SSL_connect: SSL_ERROR_SSL in connection to x:443
tls_failed: server certificate verification failed. CAfile: none CRLfile: none
tls_failed: SSL: certificate subject name (x) does not match target 'y'
not_a_git_server: fatal: unable to access 'x': Received HTTP/0.9 when not allowed
not_a_git_server: fatal: invalid server response; expected service
not_a_git_server: fatal: protocol error: bad line length character: <htm
# git-sync's own messages, about its files and its requests for a GitHub App.
target_full: mkdir /git/.git-sync/.worktrees: no space left on device
target_denied: open /git/.git-sync/x: read-only file system
name_unresolved: dial tcp: lookup api.github.com: no such host
remote_unreachable: dial tcp 10.0.0.1:443: connect: connection refused
remote_timeout: dial tcp 10.0.0.1:443: i/o timeout
tls_failed: tls: failed to verify certificate: x509: certificate has expired
"""


@pytest.mark.parametrize(
    "line", [x for x in MESSAGES.splitlines() if not x.startswith("#")]
)
def test_maps_each_message_to_its_reason(line: str) -> None:
    reason, _, said = line.partition(": ")

    error = explain(said.replace(" / ", "\n"), "git-sync failed")

    assert reason == error.reason
    assert error.advice


# What the forges and proxies answer, as git passes it on: the reason, words that must
# be quoted, and the answer.
ANSWERS = """\
credentials_refused: SAML SSO
remote: The `acme' organization has enabled or enforced SAML SSO. To access
remote: this repository, you must use the HTTPS remote with a personal access token.
fatal: unable to access 'https://github.com/a/b.git/': The requested URL returned error: 403

credentials_refused: IP allow list
remote: The 'acme' organization has an IP allow list enabled, and yours is not in it.
fatal: unable to access 'https://github.com/a/b.git/': The requested URL returned error: 403

credentials_refused: secondary rate limit
remote: You have exceeded a secondary rate limit. Please wait a few minutes.
fatal: unable to access 'https://github.com/a/b.git/': The requested URL returned error: 403

repository_not_found: error: 410
fatal: unable to access 'https://git.example.com/a/b.git/': The requested URL returned error: 410

credentials_refused: removed on August 13, 2021
remote: Support for password authentication was removed on August 13, 2021.
fatal: Authentication failed for 'https://github.com/a/b.git/'

repository_not_found: 'https://github.com/a/b.git/'
remote: Repository not found.
fatal: repository 'https://github.com/a/b.git/' not found

repository_not_found: ERROR: Repository not found.
ERROR: Repository not found.
fatal: Could not read from remote repository.

credentials_refused: required to use a token
remote: HTTP Basic: Access denied. If a password was provided for Git authentication,
remote: the password was incorrect or you're required to use a token instead.
fatal: Authentication failed for 'https://gitlab.com/a/b.git/'

repository_not_found: permission to view it
remote: The project you were looking for could not be found or you don't have
remote: permission to view it.
fatal: repository 'https://gitlab.com/a/b.git/' not found

credentials_refused: stopped supporting account passwords
remote: Bitbucket Cloud recently stopped supporting account passwords.
fatal: Authentication failed for 'https://bitbucket.org/a/b/'

repository_not_found: TF401019
remote: TF401019: The Git repository with name or identifier b does not exist or you
remote: do not have permissions for the operation you are attempting.
fatal: repository 'https://dev.azure.com/a/x/_git/b/' not found

ssh_key_refused: Public key authentication failed
remote: Public key authentication failed.
fatal: Could not read from remote repository.

credentials_refused: git-codecommit.eu-central-1
fatal: unable to access 'https://git-codecommit.eu-central-1.amazonaws.com/v1/repos/dags/': The requested URL returned error: 403

proxy_refused: error: 407
fatal: unable to access 'http://git.example.com/b.git/': The requested URL returned error: 407

not_a_git_server: info/refs
fatal: https://git.example.com/b.git/info/refs not valid: is this a git repository?
"""  # noqa: E501 - as git says it
CLONED = "\nfatal: clone of 'https://x/l.git' into submodule path '/git/l' failed"


@pytest.mark.parametrize("answer", ANSWERS.split("\n\n"))
@pytest.mark.parametrize("about", ["", CLONED])
def test_quotes_what_a_server_says_and_whose_repository_it_is_about(
    answer: str, about: str
) -> None:
    head, _, said = answer.partition("\n")
    reason, _, words = head.partition(": ")

    error = explain(f"Cloning into 'l'...\n{said}{about}", "git-sync failed")

    assert reason == error.reason
    assert words in error.message
    assert bool(about) == error.advice.startswith("This is about the submodule, ")
    assert bool(about) == ("into submodule path" in error.message)


FETCH = (
    "Run(git fetch https://x/ --depth 1): exit status 128: "
    '{ stdout: "", stderr: "Cloning\\nfatal: unable to access \'https://x/\': Could not '
    'resolve host: x" }'
)


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (
            json.dumps(
                {"Msg": "too many failures, aborting", "Err": FETCH, "Args": {}}
            ),
            "fatal: unable to access 'https://x/': Could not resolve host: x",
        ),
        (
            'Run(git fetch): context deadline exceeded: { stdout: "", stderr: "\\a" }',
            'Run(git fetch): context deadline exceeded: { stdout: "",',
        ),
        (
            "Cloning\nfatal: unable to access 'https://me:hu/sh@x/': no such host\nmore",
            "fatal: unable to access 'https://***@x/': no such host",
        ),
        (
            "fatal: unable to access 'https://x/': Unsupported proxy syntax in 'hu/sh@p'",
            "fatal: unable to access 'https://x/': Unsupported proxy syntax",
        ),
        # Not in quadratic time, which would be minutes.
        pytest.param(
            "fatal: no such host\n" + "\\" * 500_000,
            "fatal: no such host",
            id="backslashes",
        ),
    ],
)
def test_quotes_only_the_line_with_the_cause_and_no_credentials(
    report: str, message: str
) -> None:
    assert f"x: {message}" == explain(heard(report), "x").message
