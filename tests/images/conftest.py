"""
The image under test.
"""

import os
import subprocess

import pytest

from tests import ROOT
from tests.images.container import Image


@pytest.fixture(scope="session")
def image() -> Image:
    """
    The image that IMAGE names; `make image-test/NAME` builds it and sets the variable.
    """
    if "IMAGE" not in os.environ:
        pytest.skip("IMAGE names no image to test: use make image-test/NAME")
    found = subprocess.run(
        ["scripts/container-tool", "run"], cwd=ROOT, capture_output=True, text=True
    )
    if found.returncode != 0:
        pytest.skip(found.stderr.strip())
    return Image(found.stdout.strip(), os.environ["IMAGE"])
