"""
The source ``listing``: all that is listed under the prefix.
"""
