"""
Older commits that consumers request: which are in the history, and how they reach the volume.
"""
