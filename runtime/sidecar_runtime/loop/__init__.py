"""
When cycles run, in which thread, and what their ends mean.

``loop`` decides; ``trigger`` and ``events`` wake it, ``worker`` is the thread that runs cycles,
``record`` reports each to health, metrics and log, ``backoff`` spaces failures.
"""
