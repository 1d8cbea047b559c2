"""
Hooks: the user's actions after a swap of the link.
"""
