"""
The program of `make soak`: all sidecars for a long time, with random changes, faults and kills.

`station` runs the events of one sidecar; `post` runs and watches one process; `readers` and
`reader` are the consumers of the published state; `flat` limits growth; `report` prints the tables;
each other module is one station.
"""
