"""
The program of `make mutants`: runs the tests against code that is wrong on purpose.
"""
