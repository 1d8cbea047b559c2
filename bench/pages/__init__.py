"""
The page of benchmarks: its parts and plots, and how they are written.
"""
