"""
What the user wants to happen after the link has turned.
"""
