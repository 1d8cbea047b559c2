"""Orders from the shop's API."""

import json
import urllib.request


def fetch_orders(day: str, settings: dict[str, str]) -> str:
    """Write the orders of a day to a file and return its path."""
    path = f"/tmp/orders-{day}.json"
    with urllib.request.urlopen(f"{settings['api']}/orders?day={day}") as answer:
        orders = json.load(answer)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(orders, file)
    return path


def copy_orders(path: str) -> int:
    """Copy the orders of a file into the warehouse and return their number."""
    with open(path, encoding="utf-8") as file:
        return len(json.load(file))
