"""
Roles as code: the roles file that ``SYNC_PERM_ROLES`` names.
"""
