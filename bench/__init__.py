"""
The benchmarks of `make bench`: each sidecar beside its peers, on the same machine, in
one run.

Each sidecar has a module that measures it. `measure` measures costs, `budgets` compares
them with the budgets, and `report` prints the tables and writes
docs/reference/benchmarks.md.
"""
