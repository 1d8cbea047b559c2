"""
The publisher's local side: the folder to publish, and its origin.
"""
