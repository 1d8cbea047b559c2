"""
Roles as code: the file that ``SYNC_PERM_ROLES`` names.
"""
