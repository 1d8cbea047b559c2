"""
The shared volume: atomic files, locks, snapshots, and disk errors.

``files`` handles single files and ``trees`` folders; ``snapshots`` manages the copies and the link;
``lock`` excludes a second publisher; ``errors`` explains failures; ``check`` tests a folder.
"""
