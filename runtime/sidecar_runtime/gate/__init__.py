"""
The gate: the check that a revision must pass before it is published.

``gate`` judges revisions, ``checks`` are what it can run, ``syntax`` is the program of one of them;
``settings`` says which.
"""
