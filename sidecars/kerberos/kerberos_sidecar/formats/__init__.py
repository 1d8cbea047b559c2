"""
MIT's binary formats and names, read without libkrb5.
"""
