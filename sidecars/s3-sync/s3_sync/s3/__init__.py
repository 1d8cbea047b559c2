"""
The S3 client of the daemon and of `check`, over its own HTTP connections; the other commands use
boto3 (`publisher/store.py`).
"""
