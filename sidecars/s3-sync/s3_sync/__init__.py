"""
Keeps a folder in sync with an S3 prefix.

=============  ==================================================================================
here           the daemon: command, settings, plan, the lease of the target, metrics and status
``cycle``      one cycle: from the state of a source to what consumers see, or to a reason
``listing``    the source ``listing``: every object under the prefix becomes a file
``release``    the source ``release``: the format, and how a release reaches the target
``layouts``    how files become visible to consumers: in place, behind a gate, snapshots
``tree``       the synced folder and its `.s3-sync` on disk: files, their list, what is published
``s3``         the S3 reader, from requests down to connections
``publisher``  the commands: publish, promote, roll back, list, diff, pin and prune releases
=============  ==================================================================================

A cycle goes ``sidecar`` → ``cycle`` → ``reconcile`` → a source and a layout. A contract in the
repository's pyproject.toml lists the allowed imports.
"""
