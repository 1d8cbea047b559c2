"""
Which commit the ref names now.
"""
