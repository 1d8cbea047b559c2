"""
AWS credentials and configuration, from botocore in a short-lived child.

``credentials`` keeps what the child found; ``chain`` is its program.
"""
