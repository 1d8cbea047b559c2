"""
The source ``release``: the format of releases, and how a release reaches the target.
"""
