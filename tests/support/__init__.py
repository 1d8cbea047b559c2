"""Shared test support: real S3 servers, the real daemon as a process, waiting with a deadline."""
