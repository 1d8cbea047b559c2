"""
Runs git-sync itself.
"""
