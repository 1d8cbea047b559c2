"""Tests of git-sync-wrapper, in folders named like those of its modules."""
