"""
Runs the official git-sync, and prevents its outages.
"""
