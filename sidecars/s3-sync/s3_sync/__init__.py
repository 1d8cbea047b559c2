"""
Keeps a folder equal to an S3 prefix.
"""
