"""
Revisions of two files.
"""

from tests.s3_sync.stage import Stage

ONE = {"a.py": "one", "d/b.py": "one"}

TWO = {"a.py": "two", "d/b.py": "one", "c.py": "two"}


def links(stage: Stage, path: str, *revisions: str) -> bool:
    """
    Whether a file of the tree and of these snapshots is one and the same.
    """
    places = [stage.state / "snapshots" / revision / path for revision in revisions]
    return all(place.samefile(stage.state / "tree" / path) for place in places)
