"""The shared runtime: one test file for each of its modules."""
