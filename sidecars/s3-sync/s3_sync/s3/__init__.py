"""
The S3 client of the daemon and of `check`: each of their requests to S3 goes through
the pool of `http.py`. The other commands use boto3 (`publisher/store.py`), and the
child that fetches credentials botocore.
"""
