"""
One cycle: what the source has now becomes what the folder shows, or a reason why not.
"""
