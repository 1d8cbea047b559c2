"""
What the command lines of sidecars have in common.
"""

import pytest

from sidecar_runtime.command import make_parser
from sidecar_runtime.settings import CommonSettings


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--version", "some-sidecar "),
        ("--help", "SOME_HTTP_BIND"),
        ("--help", "also read: OTHER\n"),
    ],
)
def test_says_what_it_is_without_any_setting(
    argument: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = make_parser(
        "some-sidecar",
        "It does something.",
        CommonSettings,
        "SOME_",
        "SOME=1 some-sidecar",
        "OTHER",
    )

    with pytest.raises(SystemExit, match="0"):
        parser.parse_args([argument])

    assert said in capsys.readouterr().out
