"""
AWS credentials and configuration, from botocore in a short-lived child process.

``credentials`` caches the child's answer; ``chain`` is the child's program.
"""
