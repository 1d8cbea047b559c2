"""
The gate: the check that a revision must pass before it is published.

``gate`` has the settings, and judges revisions; ``syntax`` is the program of the syntax
check.
"""
