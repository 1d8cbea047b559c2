"""
The shared volume: atomic files, locks, snapshots, and what can go wrong with a disk.

``files`` are single files and ``trees`` whole ones, ``snapshots`` has the copies and the link,
``lock`` keeps a second publisher out, ``errors`` explains failures, ``check`` tries a folder.
"""
