"""
The metadata database: its drivers, its lock, what its tables say.
"""
