"""
How git logs in: credentials, keys and known hosts, and where they come from.
"""
