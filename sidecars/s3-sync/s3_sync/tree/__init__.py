"""
The synced folder and its `.s3-sync`: every change on disk happens here.
"""
