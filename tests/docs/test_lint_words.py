"""
The word checker finds phrases that read as if translated, and accepts good sentences.
"""

from __future__ import annotations

import pytest

from scripts.lint_words import WORDS, finds

BAD = {
    "rows mended that a race left behind": "mended",
    "class Mended:": "Mended",
    "def test_damage_is_mended_at_the_start(": "mended",
    'log.warning("secret_mended")': "mended",
    "a ticket is acquired anew": "anew",
    "it would wait for it for\n    # ever.": "for # ever",
    'text="Retries for "\n    "ever."': 'for " "ever',
    "in **the place** of": "in **the place** of",
    "who loses is told when it can be seen": "is told",
    "def test_a_full_disk_is_told(": "is_told",
    "So many older ones stay.": "So many",
    "for who compares texts": "for who",
    "ValueError: The URL is none.": "is none",
    "SidecarError: It is not to be had.": "be had",
    "nothing could be\n    # had of it": "be # had",
    "a one-shot does not end well": "end well",
    "the key belongs into the file": "belongs into",
    "it is asked ever more seldom": "ever more seldom",
    "line ends of Windows": "line ends of",
    "keys of before cease to work": "of before",
    "S3 tells it only to who may list": "to who",
    "What of a folder becomes a release": "What of",
    "a further one": "a further",
    "the proxy let us not to it": "let us not",
    "a quarter of an hour before its end": "a quarter of an hour",
    "until somebody adds a character": "Somebody",
    "it stands in `/readyz`": "stands in",
    "Every so-manieth key": "so-manieth",
    "Whether the link leads there, be there what may.": "be there what may",
    "one newline is nothing to speak of": "nothing to speak of",
    "it answers as no web server does": "as no web server does",
    "pages that were not whole": "were not whole",
}
GOOD = [
    "return None if ticket is None else ticket",
    "assert (found is None, other is not None)",
    "There is none. There are none.",
    "a wrapper whose root is on a shared volume",
    "the second one stands by and takes over",
    "a program that stands in for git-sync",
    "from tests.support.stand_in import flags",
    "two hashes that can be told apart, silence that is told from refusal",
    "def test_silence_is_told_from_refusal() -> None:",
    "a shell that runs whenever it is told to",
    "so many of them that it is slow",
    "for whoever watches it",
    "for who in people:",
    "tells whoever asks who it is",
    "the ends are well known; all is well that ends",
    "instead of before the start",
    "what offers itself; somewhat often",
    "recommended, amended, a commendation",
    "the header, the cache, forever",
    "further changes",
]


@pytest.mark.parametrize("text", BAD)
def test_finds_phrases_that_read_as_if_translated(text: str) -> None:
    assert [BAD[text].lower()] == [words.lower() for _, words, _ in finds(text)]


@pytest.mark.parametrize("text", GOOD)
def test_accepts_good_sentences(text: str) -> None:
    assert [] == list(finds(text))


def test_reports_the_line_and_the_replacement() -> None:
    assert [(2, "anew", WORDS["anew"])] == list(finds("first\nbegin anew\n"))
