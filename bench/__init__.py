"""
What `make bench` runs: each sidecar beside its peers, on the same machine, in the same run.

A sidecar has a file that measures and, where that is long, one with its tables (`…_page`) and one
with its peers. `measure` says what something costs, `budgets` what was promised, `page` and
`report` write docs/reference/benchmarks.md.
"""
