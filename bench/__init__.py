"""
What `make bench` runs: s3-sync and its peers on the same machine, in the same run, as ratios.
"""
