"""
The common parts of the sidecars' command lines.
"""

from argparse import ArgumentParser

import pytest

from sidecar_runtime import DOCS
from sidecar_runtime.command import make_parser
from sidecar_runtime.settings import CommonSettings


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--version", "some-sidecar "),
        ("--help", "SOME_HTTP_BIND"),
        ("--help", "also reads: OTHER\n"),
    ],
)
def test_version_and_help_work_without_settings(
    argument: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        some_parser().parse_args([argument])

    assert said in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--bucket", "x"], ["check", "--interval=5"]])
def test_an_option_is_rejected_with_a_hint_at_environment_variables(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    parser = some_parser()
    parser.add_subparsers(metavar="COMMAND").add_parser("check")

    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(arguments)

    hint = "Settings are environment variables, not options. Run some-sidecar --help for a list.\n"
    assert capsys.readouterr().err.endswith(hint)


def test_a_wrong_argument_of_a_command_is_rejected_with_a_hint_at_its_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = some_parser()
    parser.add_subparsers().add_parser("prune").add_argument("--keep", type=int)

    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["prune", "--keep", "soon"])

    said = "invalid int value: 'soon'\nRun some-sidecar prune --help for a list.\n"
    assert capsys.readouterr().err.endswith(said)


def test_the_help_of_a_command_ends_with_the_address_of_the_documentation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = some_parser()
    parser.add_subparsers().add_parser("prune")

    with pytest.raises(SystemExit, match="0"):
        parser.parse_args(["prune", "--help"])

    assert capsys.readouterr().out.endswith(f"\nDocumentation: {DOCS}/README.md\n")


def some_parser() -> ArgumentParser:
    return make_parser(
        "some-sidecar",
        "It does something.",
        CommonSettings,
        "SOME_",
        "SOME=1 some-sidecar",
        "OTHER",
    )
