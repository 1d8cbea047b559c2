"""
Untrusted text, safe to display.
"""

from sidecar_runtime.printable import printable


def test_what_could_steer_a_terminal_is_shown_as_its_number() -> None:
    assert r"\x1b[31mred\r\n ü \udcff \u202e" == printable("\x1b[31mred\r\n ü \udcff \u202e")
