"""
The folder that is kept, and `.s3-sync` in it: every effect on the disk is here.
"""
