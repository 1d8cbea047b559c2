"""
Keeps a folder in sync with an S3 prefix.

=============  ====================================================================
here           the daemon: settings, the cycle and its parts, metrics and status
``listing``    the source ``listing``: every object under the prefix becomes a file
``release``    the source ``release``: the format, and how a release reaches the target
``layouts``    how files become visible to consumers: in place, behind a gate, snapshots
``tree``       the synced folder: every change on disk happens here
``s3``         the S3 reader, from requests down to connections
``publisher``  the commands: publish, roll back, list, pin and prune releases
=============  ====================================================================

A cycle goes ``sidecar`` → ``cycle`` → ``reconcile`` → a source and a layout. A contract in the
repository's pyproject.toml lists the allowed imports.
"""
