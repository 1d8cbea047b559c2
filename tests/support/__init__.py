"""Shared test support: servers, sidecars as processes, waiting with a deadline."""
