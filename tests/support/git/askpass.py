"""
A server for git-sync's `--askpass-url`.
"""

from tests.support.http.loopback import Answer, LoopbackServer, Request


class AskpassServer(LoopbackServer):
    """
    Answers with the current username and password.
    """

    def __init__(self, username: str, password: str) -> None:
        super().__init__()
        self.username = username
        self.password = password

    def good_answer(self, request: Request) -> Answer:
        """
        Return two lines in the format of git's credential protocol.
        """
        body = f"username={self.username}\npassword={self.password}\n"
        return Answer(200, {"Content-Type": "text/plain"}, body.encode())
