"""
Text for display and in JSON: untrusted text, and numbers with their nouns.
"""

import json

import pytest

from sidecar_runtime.errors import counted, json_text, printable


def test_escapes_characters_that_could_control_a_terminal() -> None:
    assert r"\x1b[31mred\r\n ü \udcff \u202e" == printable("\x1b[31mred\r\n ü \udcff \u202e")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("caf\udce9", r"caf\udce9"),
        ("\ud83d\ud83d\ude00", "\\ud83d\U0001f600"),
        (r"\udce9 \\udce9", r"\udce9 \\udce9"),
        ("\\\udce9", r"\\udce9"),
        ('\U0001f600 \u202e ü \n " \\', '\U0001f600 \u202e ü \n " \\'),
    ],
)
def test_json_contains_no_lone_surrogates_and_all_other_text_unchanged(
    text: str, shown: str
) -> None:
    written = json_text({text: [text]}, indent=2)

    assert written.isascii()
    assert {shown: [shown]} == json.loads(written)
    assert shown.encode()


def test_a_noun_after_any_number_but_one_is_plural() -> None:
    assert ["0 files", "1 file", "2 files"] == [counted(number, "file") for number in range(3)]
