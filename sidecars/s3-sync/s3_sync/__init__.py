"""
Keeps a folder equal to an S3 prefix.

=============  ====================================================================
here           the daemon: settings, the cycle and its parts, what it reports
``listing``    the source ``listing``: all that is under the prefix, an object a file
``release``    the source ``release``: its format, and how one gets to the target
``layouts``    how files become what consumers see: in place, behind a gate, snapshots
``tree``       the folder that is kept: every effect on the disk
``s3``         the reader of S3, from requests down to connections
``publisher``  the commands: publish, roll back, list, pin and prune releases
=============  ====================================================================

A cycle goes ``sidecar`` → ``cycle`` → ``reconcile`` → a source and a layout. Which may import which
is a contract in the repository's pyproject.toml.
"""
