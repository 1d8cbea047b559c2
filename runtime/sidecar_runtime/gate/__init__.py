"""
The gate: the check that a revision must pass before it is published.

``gate`` judges revisions with one of the ``checks``; ``syntax`` is the program of the syntax check;
``settings`` selects the check.
"""
