"""Reference exchange rates."""


def fetch_rates() -> dict[str, float]:
    """Return units of each currency per euro."""
    return {"USD": 1.09, "JPY": 163.2, "CHF": 0.95}
