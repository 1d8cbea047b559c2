"""The sidecar git-sync-wrapper: one test file for each of its modules."""
