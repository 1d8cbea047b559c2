"""
The S3 client of the daemon, over its own HTTP connections.
"""
