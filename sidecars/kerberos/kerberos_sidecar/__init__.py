"""
Keeps Kerberos tickets in credential caches fresh from a keytab.
"""
