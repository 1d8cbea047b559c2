"""
The S3 client of the daemon and of `check`: each of their requests to S3 goes through
the pool of `http.py`. The other commands use boto3 (`publisher/bucket.py`); the child
that fetches credentials uses botocore, and asks nothing of S3.
"""
