"""
The page of the figures: its parts, its plots, and how they are written.
"""
