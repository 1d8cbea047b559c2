"""
How files that cycles have brought up to date become visible to consumers.
"""
