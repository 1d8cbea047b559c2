"""
How files that cycles have brought up to date become what consumers see.
"""
