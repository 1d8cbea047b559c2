"""
The source ``release``: what the format is, and how one gets to the target.
"""
