"""
The tests of all sidecars.
"""

from pathlib import Path

ROOT = Path(__file__).parents[1]
