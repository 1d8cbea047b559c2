"""
What `make demo` runs: the real daemon against an S3 server inside this process.
"""
