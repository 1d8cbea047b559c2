"""
The metadata database: its drivers, its lock, and its tables.
"""
