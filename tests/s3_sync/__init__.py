"""The sidecar s3-sync: one test file for each of its modules."""
