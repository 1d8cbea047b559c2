"""
The synced folder and its `.s3-sync` on disk: files, their list, and what is published.
"""
