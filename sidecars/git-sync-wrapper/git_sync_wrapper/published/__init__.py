"""
What consumers see: the link, its snapshots, their files.
"""
