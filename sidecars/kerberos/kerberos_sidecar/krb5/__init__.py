"""
libkrb5: its configuration, its tickets, its failures.
"""
