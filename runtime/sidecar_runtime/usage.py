"""
The command line of a sidecar; s3-sync and git-sync-wrapper start without argparse.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter

from sidecar_runtime import __version__
from sidecar_runtime.settings import CommonSettings, describe


def make_parser(
    program: str,
    description: str,
    settings: type[CommonSettings],
    prefix: str,
    example: str,
    also: str,
) -> ArgumentParser:
    """
    Return a parser that supports ``--version``, and whose ``--help`` ends with the
    settings.

    Args:
        example: An example command line.
        also: Inputs other than the settings.
    """
    parser = ArgumentParser(
        program,
        description=description,
        formatter_class=RawDescriptionHelpFormatter,  # the default one breaks addresses
        epilog=f"example:\n  {example}\n\n{describe(settings, prefix, also)}",
    )
    parser.add_argument(
        "--version", action="version", version=f"{program} {__version__}"
    )
    return parser
