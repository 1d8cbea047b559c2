"""
Poll over HTTP: one small request on a kept connection, and no process.

git-sync's own poll costs 15 processes and 40 to 60 ms of CPU (2026-11); this one about a hundredth.
It only saves work and decides nothing: if it fails, git-sync itself runs.
"""

from __future__ import annotations

import time
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from git_sync_wrapper.flags.options import Options
from git_sync_wrapper.http.answer import Answer
from git_sync_wrapper.http.connection import PATIENCE, Patience, Remote
from git_sync_wrapper.http.route import Unheeded, Way, basic, way_to
from git_sync_wrapper.login.access import Access
from git_sync_wrapper.login.credential import Credential
from git_sync_wrapper.poll import pkt
from sidecar_runtime import __version__
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger

# Some servers answer in git's protocol only if the client's name is git.
HEADERS = {"User-Agent": f"git/2 (git-sync-wrapper {__version__})", "Git-Protocol": "version=2"}
ADVERT = "/info/refs?service=git-upload-pack"
SERVICE = "/git-upload-pack"
TYPE = "application/x-git-upload-pack-request"
REDIRECTS = 5

log = get_logger("poll")


class RefsError(SidecarError):
    """
    The server does not report the ref's commit.
    """


def make_poller(
    options: Options, access: Access, patience: Patience = PATIENCE
) -> HttpPoller | None:
    """
    Return the poller of a repository, or None if only git itself can poll it.
    """
    try:
        url = urlsplit(options.repo)
    except ValueError:  # git will report it
        return None
    if url.scheme not in ("http", "https") or not url.hostname:
        return None
    url = url._replace(path=quote(url.path.rstrip("/"), safe="/%:@!$&'()*+,;=~"))
    if options.cookie_file or url.query:
        why = "--cookie-file is set" if options.cookie_file else "the repository URL has a query"
        log.info("polling_left_to_git", why=why)
        return None
    try:
        way = way_to(url, options.configs, access.environ)
        return HttpPoller(url, options.ref, way, access, patience)
    except Unheeded as why:
        log.info("polling_left_to_git", why=str(why))
        return None


class HttpPoller:
    """
    Polls one repository over smart HTTP, in the thread of the cycle.

    It caches the bytes of the request, the credentials until they expire or are refused, and the
    commit in the last answer.
    """

    def __init__(
        self,
        url: SplitResult,
        ref: str,
        way: Way,
        access: Access,
        patience: Patience = PATIENCE,
    ) -> None:
        self._given_url = url
        self._url = url
        self._ref = ref
        self._access = access
        self._remote = Remote(url, way, patience)
        self._requests: dict[str, bytes] = {}
        self._credential: Credential | None = None
        self._knows_login = False  # True as well if access is anonymous
        self._object_format: str | None = None  # set once the server has answered in version 2
        self._seen: bytes | None = None
        self._found: str | None = None

    def commit(self, fence: Fence) -> str:
        """
        Return the full hash of the commit that the ref names now.

        Raises:
            SidecarError: The commit cannot be determined.
            CycleAbandoned: The fence was revoked meanwhile.
        """
        try:
            self._look_where_it_is(fence)
        except ValueError as error:  # NotGit, or a URL that makes no valid request
            self._forget()
            self._knows_login = False  # a proxy may answer an expired login so
            raise RefsError(
                "not_a_git_server",
                f"the answer for {self._shown} is not from a git server: {error}",
                "Check GITSYNC_REPO: it may lead to a web page, or to the login page of a proxy.",
            ) from None
        except pkt.ServerSays as error:
            self._forget()
            self._knows_login = False
            raise RefsError(
                "remote_refused",
                f"{self._shown}: server error: {error}",
                "Read the quoted error. Check GITSYNC_REPO and the rights of these credentials.",
            ) from None
        except SidecarError:
            self._forget()
            raise
        if self._found is None:
            raise RefsError(
                "ref_not_found",
                f"{self._shown} has no ref {self._ref}",
                "Check GITSYNC_REF, and check whether the branch was renamed or deleted. The "
                "published commit stays.",
            )
        return self._found

    def close(self) -> None:
        """
        Close the connection.
        """
        self._remote.close()

    @property
    def _shown(self) -> str:
        return self._given_url.geturl()

    def _forget(self) -> None:
        """
        Clear the cached answer and address: the repository may have moved to another place.
        """
        self._object_format = self._seen = None
        self._url = self._given_url
        self._requests.clear()

    def _look_where_it_is(self, fence: Fence) -> None:
        """
        Request the refs, also if the repository has moved: only a GET follows a redirect.
        """
        try:
            self._look(fence)
        except RefsError as error:
            if error.reason != "redirect_refused" or self._object_format is None:
                raise
            self._forget()
            self._look(fence)

    def _look(self, fence: Fence) -> None:
        """
        Request the refs; parse them only if the answer differs from the last one.
        """
        if self._object_format is None:
            body = self._ask("GET", ADVERT, fence)
            if body == self._seen:
                return
            advert = pkt.read_advert(body)
            if advert.refs is not None:
                self._seen, self._found = body, pkt.choose(advert.refs, self._ref)
                return
            self._object_format = advert.object_format
        body = self._ask("POST", SERVICE, fence)
        if body != self._seen:
            self._found = pkt.choose(pkt.read_refs(body), self._ref)
            self._seen = body

    def _ask(self, method: str, path: str, fence: Fence) -> bytes:
        """
        Send a request, and return the body of a good answer; refresh cached credentials once.
        """
        is_held = self._knows_login
        answer = self._follow(method, path, fence)
        if answer.status in (401, 403) and is_held:
            self._drop_login()
            answer = self._follow(method, path, fence)
        if answer.status == 200:
            return answer.body
        error = self._explain(answer, fence)
        if answer.status in (401, 403):
            self._drop_login()
        elif answer.status == 404:  # forges answer so for a repository without read access
            self._knows_login = False
        raise error

    def _drop_login(self) -> None:
        self._access.refused(self._shown)
        self._knows_login = False

    def _follow(self, method: str, path: str, fence: Fence) -> Answer:
        """
        Send with credentials, and follow redirects on the same server.

        Credentials are never sent to another server; git may log in there on its own.
        """
        for _ in range(REDIRECTS):
            answer = self._remote.ask(self._request(method, path, fence), fence)
            moved = self._moved(answer, path) if method == "GET" else None
            if moved is None:
                break
            self._url = moved
            self._requests.clear()
        return answer

    def _request(self, method: str, path: str, fence: Fence) -> bytes:
        held = self._credential
        if not self._knows_login or (held and held.expires_at and held.expires_at <= time.time()):
            self._credential = self._access.credential(self._shown, fence)
            self._knows_login = True
            self._requests.clear()
        if method not in self._requests:
            headers, body = dict(HEADERS), b""
            if self._credential is not None:
                pair = self._credential.username, self._credential.password
                headers["Authorization"] = basic(*pair)
            if method == "POST":
                headers["Content-Type"] = TYPE
                body = pkt.ask_for(self._ref, self._object_format or "sha1")
            target = f"{self._url.path}{path}"
            self._requests[method] = self._remote.request(method, target, headers, body)
        return self._requests[method]

    def _moved(self, answer: Answer, path: str) -> SplitResult | None:
        if answer.status not in (301, 302, 303, 307, 308):
            return None
        here = f"{self._url.geturl()}{path}"
        there = urljoin(here, answer.headers.get("location", ""))
        url = urlsplit(there.removesuffix(path))
        is_same_server = (url.scheme, url.netloc) == (self._url.scheme, self._url.netloc)
        is_elsewhere = there != here and there.endswith(path)
        return url if is_same_server and is_elsewhere else None

    def _explain(self, answer: Answer, fence: Fence) -> SidecarError:
        said = f"{self._shown} answers {answer.status}"
        match answer.status:
            case 401 | 403 if self._credential is None:
                return RefsError(
                    "login_missing",
                    f"{said} to an anonymous request",
                    "Set GITSYNC_USERNAME and a password, or GIT_SYNC_WRAPPER_CREDENTIALS.",
                )
            case 401 | 403:
                return self._access.explain(self._shown, fence) or RefsError(
                    "credentials_refused",
                    f"{said} to {self._access.who(fence) or 'the credentials'}",
                    "Check that the token has not expired and that it may read the repository. "
                    "If it is an environment variable, restart the pod after changing the Secret.",
                )
            case 404:
                return RefsError(
                    "repository_not_found",
                    said,
                    "Check GITSYNC_REPO, and check that the token may read the repository.",
                )
            case 429 | 503:
                return RefsError(
                    "throttled",
                    said,
                    "The request is retried; if it keeps failing, check the git server. For a "
                    "large fleet, set a longer period.",
                )
            case status if 300 <= status < 400:
                return RefsError(
                    "redirect_refused",
                    f"{said}: a redirect that leads to another server",
                    "Check GITSYNC_REPO: credentials are never sent to another server.",
                )
        return RefsError("server_error", said, "Check the git server. The request is retried.")
