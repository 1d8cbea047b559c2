"""
A fault at each system call of a cycle: the process that acts, and who directs it.
"""
