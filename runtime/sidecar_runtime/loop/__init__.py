"""
Schedules cycles, runs them in a thread, and acts on their results.

``loop`` decides; ``trigger`` and ``events`` wake it; ``worker`` is the thread that runs cycles;
``record`` records each cycle in health, metrics and log; ``backoff`` spaces retries.
"""
