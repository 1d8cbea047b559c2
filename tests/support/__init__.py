"""What the tests share: real S3 servers, the real daemon as a process, waiting with a deadline."""
