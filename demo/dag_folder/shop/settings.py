"""The shop's settings, from config/shop.yaml beside the DAGs."""

from pathlib import Path

import yaml

CONFIG = Path(__file__).parents[1] / "config" / "shop.yaml"


def load_settings() -> dict[str, str]:
    """Read the settings on every call, so that a change needs no restart."""
    return yaml.safe_load(CONFIG.read_text())
