"""
What the daemon needs of S3, over connections of its own.
"""
