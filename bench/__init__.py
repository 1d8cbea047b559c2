"""
The benchmarks of `make bench`: each sidecar beside its peers, on the same machine, in one run.

Each sidecar has a module that measures it. Long ones are split into further modules for the tables
(`…_page`) and the peers. `measure` measures costs, `budgets` compares them with the budgets, and
`page` and `report` write docs/reference/benchmarks.md.
"""
