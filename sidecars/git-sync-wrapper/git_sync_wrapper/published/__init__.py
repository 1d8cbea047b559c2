"""
The published state on the volume: the link, the snapshots and their files.
"""
