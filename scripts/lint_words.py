"""
Checks the English: lists words that read as if translated, with a replacement.

    .venv/bin/python scripts/lint_words.py [FILE ...]

Reads every text that git tracks, including code: messages, docstrings, comments and test names are
sentences. Exits with 1 and prints a line for each match.

A pattern matches whole words. A space in it matches any separator between two words of a sentence:
spaces, a line break, the `#` of the next comment line, the quotes between two parts of a string,
the underscores of a name. Each pattern is narrow enough not to match good English and code:
`x is None`, "whose", "stand by", "there is none", "told apart". A word that is correct in a single
place, such as an old name in the changelog, belongs in `ALLOWED`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Pattern: its replacement.
WORDS = {
    r"(?:un)?mend(?:s|ed|ing)?": "fix, repair; correct (a value)",
    r"anew": "again, from scratch",
    r"for ever": "forever, indefinitely, until a restart",
    r"in the place of": "instead of; that replaces",
    r"(?:is|are|was|were) told(?! (?:to|apart|from)\b)": "is reported, is logged; gets, learns",
    r"told of": "reported, logged; told about",
    r"so many(?! (?:of|that)\b)": "how many, that many, this many",
    r"(?:for|from|to) who(?! in\b)": "for whoever, for those who",
    r"(?<!there[\x20_])(?:is|are) (?-i:none)": "is not a ...; there is no ...",
    r"be had": "be read; is available; can be determined",
    r"(?:ends?|ended) well": "succeeds",
    r"belongs? into": "belongs in",
    r"ever (?:more )?seldom": "less and less often",
    r"line ends of": "line endings",
    r"of before(?! (?:the|a)\b)": "earlier",
    r"what of": "what part of, the state that",
    r"a further": "another",
    r"lets? (?:it|us|them|me) not": "does not let it, refuses to",
    r"a quarter of an hour": "15 minutes",
    r"he|she|somebody": "you, the operator, another process, someone",
    r"stands in(?! for\b)": "is in",
    r"(?:so-)?manieth": "every n-th",
    r"be there what may": "even if it is gone",
    r"nothing to speak of": "ignored, stripped",
    r"as no (?:[a-z]+ ){1,3}does": "not a valid ...",
    r"were not whole": "would be incomplete",
}
# Allowed exceptions: path and text.
ALLOWED: set[tuple[str, str]] = set()
# Files without our sentences, and the lists of wrong words themselves.
UNREAD = re.compile(r"(^|/)(requirements/|test_scripts\.py$|lint_words\.py$)")

GAP = r"""[\s#"'_*]+"""
END = "(?![A-Za-z])"


def compiled(pattern: str) -> re.Pattern[str]:
    """
    Compile a pattern of `WORDS` so that it matches whole words; underscores separate words.
    """
    pattern = pattern.replace(" ", GAP).replace(r"\b", END)
    return re.compile(f"(?<![A-Za-z])(?:{pattern}){END}", re.IGNORECASE)


PATTERNS = [(compiled(pattern), advice) for pattern, advice in WORDS.items()]


def finds(text: str) -> Iterator[tuple[int, str, str]]:
    """
    Yield the line, the words and the advice for each match in a text, in the order of `WORDS`.
    """
    for pattern, advice in PATTERNS:
        for match in pattern.finditer(text):
            yield text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), advice


def texts() -> list[Path]:
    """
    Return every file that git tracks and that contains our text.
    """
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.split("\0") if name and not UNREAD.search(name)]
    paths = [ROOT / name for name in names]
    return [path for path in paths if path.is_file() and path.suffix not in {".png", ".svg"}]


def main() -> int:
    """
    Print all matches; return 1 if there are any.
    """
    found = 0
    for path in [Path(name).resolve() for name in sys.argv[1:]] or texts():
        name = str(path.relative_to(ROOT))
        text = path.read_text(encoding="utf-8")
        for word in (word for file, word in ALLOWED if file == name):
            text = text.replace(word, "")
        for line, words, advice in sorted(finds(text)):
            found += 1
            sys.stdout.write(f'{name}:{line}: "{words}": write: {advice}\n')
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
