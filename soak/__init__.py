"""
`make soak`: all sidecars under random faults and kills, on the servers of the tests.
"""
