"""
Runs the official git-sync, and ends its outages.
"""
