"""
What `make soak` runs: all sidecars for a long time, with random changes, faults and kills.

`station` is what happens to one sidecar, `post` one process and how it is watched, `readers` and
`reader` those who read what it publishes, `flat` what growth is allowed, `report` the tables; the
others are one station each.
"""
