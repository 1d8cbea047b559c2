"""
Text for display: untrusted text, and numbers with their nouns.
"""

from sidecar_runtime.printable import counted, printable


def test_escapes_characters_that_could_control_a_terminal() -> None:
    assert r"\x1b[31mred\r\n ü \udcff \u202e" == printable("\x1b[31mred\r\n ü \udcff \u202e")


def test_a_noun_after_any_number_but_one_is_plural() -> None:
    assert ["0 files", "1 file", "2 files"] == [counted(number, "file") for number in range(3)]
