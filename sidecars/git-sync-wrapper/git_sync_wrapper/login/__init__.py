"""
How git logs in: credentials, keys and known hosts, and their sources.
"""
