"""
The program of `make mutants`: it runs the tests against code with deliberate faults.
"""
