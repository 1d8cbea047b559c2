"""
Polling: ask the remote which commit the ref names.
"""
