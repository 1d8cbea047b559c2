"""Tests of s3-sync, arranged like its modules."""
