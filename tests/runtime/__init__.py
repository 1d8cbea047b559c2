"""The shared runtime: one or more test files for each module."""
