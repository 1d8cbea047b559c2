"""
HTTP clients for polls of a git server and for webhooks.
"""
