"""
The shared volume: atomic files, the lock, snapshots, and disk errors.

``files`` handles single files and the lock, and explains failures; ``snapshots``
handles folders, their copies and the link.
"""
