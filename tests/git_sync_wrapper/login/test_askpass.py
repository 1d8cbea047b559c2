"""
Credentials from the service at `--askpass-url`.
"""

from collections.abc import Callable, Iterator

import pytest

from git_sync_wrapper.login.askpass import Askpass
from git_sync_wrapper.login.credential import Credential, Wanted
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from tests.support.git.askpass import AskpassServer
from tests.support.http import faults
from tests.support.http.loopback import Answer
from tests.support.raising import raised

wanted = Wanted.by_url
REPO = wanted("https://git.example.com/team/dags.git")


@pytest.fixture
def service() -> Iterator[AskpassServer]:
    with AskpassServer("deploy", "a=b%+") as service:
        yield service


Ask = Callable[[], Credential | None]


@pytest.fixture
def askpass(service: AskpassServer) -> Askpass:
    return Askpass(f"{service.endpoint}/git?who=dags", REPO, {"http_proxy": "http://p:1"})


@pytest.fixture
def ask(askpass: Askpass, fence: Fence) -> Ask:
    return lambda: askpass.credential(REPO, fence)


def test_keeps_the_answer_until_it_is_refused_and_bypasses_the_proxy(
    service: AskpassServer, askpass: Askpass, ask: Ask
) -> None:
    said = [ask(), ask()]
    askpass.refused(wanted("https://github.com/x"))
    said.append(ask())
    # A service may be a few lines of shell.
    service.inject(faults.raw(b"HTTP/1.1 200 OK\n\njunk\nusername=next\r\npassword=other\n"))
    askpass.refused(REPO)
    said.append(ask())

    assert [*[Credential("deploy", "a=b%+")] * 3, Credential("next", "other")] == said
    assert ["/git?who=dags"] * 2 == [request.target for request in service.requests]


def test_sends_the_login_of_the_url(service: AskpassServer, fence: Fence) -> None:
    url = service.endpoint.replace("http://", "http://me:p%40ss@")

    assert Askpass(url, REPO, {}).credential(REPO, fence)

    (request,) = service.requests
    assert "Basic bWU6cEBzcw==" == request.headers["authorization"]


def test_waits_for_a_slow_service(service: AskpassServer, ask: Ask) -> None:
    """git-sync itself waits for only one second."""
    service.inject(lambda exchange: (exchange.pause(1.3), exchange.send(exchange.good()))[1])

    assert Credential("deploy", "a=b%+") == ask()


def test_answers_only_for_the_repositorys_server(service: AskpassServer, fence: Fence) -> None:
    askpass = Askpass(service.endpoint, REPO, {})

    assert None is askpass.credential(wanted("https://github.com/x"), fence)
    assert [] == service.requests


@pytest.mark.parametrize(
    "answer", [Answer(500, {}, b"password=secret"), Answer(302), Answer(200, {}, b"hello")]
)
def test_does_not_quote_a_failed_answer(service: AskpassServer, ask: Ask, answer: Answer) -> None:
    service.inject(faults.answer_with(answer))

    error = raised(SidecarError, ask)

    assert "askpass_failed" == error.reason
    assert "secret" not in f"{error}{error.advice}"


def test_reports_a_service_that_is_down(service: AskpassServer, ask: Ask) -> None:
    service.stop()

    error = raised(SidecarError, ask)

    assert ("askpass_failed", True) == (error.reason, "refused" in error.message)
