"""
The source ``listing``: every object under the prefix.
"""
