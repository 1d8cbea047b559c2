"""
Running git-sync itself.
"""
