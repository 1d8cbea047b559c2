"""
One cycle: the current state of the source is published, or a reason why it is not.
"""
