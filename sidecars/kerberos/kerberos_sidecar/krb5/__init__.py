"""
The interface to libkrb5: configuration, ticket requests and failures.
"""
