"""
The program of `make demo`: the real daemons against servers on this machine.
"""
