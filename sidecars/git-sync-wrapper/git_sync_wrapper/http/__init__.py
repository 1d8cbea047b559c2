"""
HTTP clients for polls of a git server, for webhooks and for ``--askpass-url``.
"""
