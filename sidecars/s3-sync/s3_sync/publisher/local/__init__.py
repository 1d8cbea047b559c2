"""
What a publisher has on its own disk: the folder, and where it comes from.
"""
