"""
What `make demo` runs: the real daemons against servers inside this process.
"""
