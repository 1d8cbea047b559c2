"""
Older commits that consumers ask for: which belong to what is shown, and how they come.
"""
