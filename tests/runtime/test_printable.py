"""
The escaping of untrusted text for display.
"""

from sidecar_runtime.printable import printable


def test_escapes_characters_that_could_control_a_terminal() -> None:
    assert r"\x1b[31mred\r\n ü \udcff \u202e" == printable("\x1b[31mred\r\n ü \udcff \u202e")
