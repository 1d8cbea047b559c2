"""
What `make bench` runs: each sidecar beside its peers, on the same machine, in the same run.

One sidecar, one file; `measure`, `proxy` and `report` are what the files share.
"""
