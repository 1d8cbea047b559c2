"""
The volume: the folder that consumers read, `.s3-sync` in it, and the two layouts.
"""
