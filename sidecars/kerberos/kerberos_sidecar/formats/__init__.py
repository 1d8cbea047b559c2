"""
Parsers for MIT's binary formats and principal names, independent of libkrb5.
"""
