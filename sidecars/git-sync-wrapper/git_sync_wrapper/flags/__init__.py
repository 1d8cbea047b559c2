"""
git-sync's own flags and variables, read as git-sync reads them.
"""
