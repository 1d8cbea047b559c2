"""
Keeps a folder in sync with an S3 prefix.

=============  ==================================================================================
``sidecar``    the daemon that the runtime's loop runs, and the releases that consumers request
``sync``       the story of one cycle, from the lock to the outcome
``listing``    the source ``listing``: every object under the prefix becomes a file
``release``    the source ``release``: the format, and how a release reaches the target
``plan``       what is wanted minus what is held, and the brake on deletions; pure
``build``      a folder is brought up to date by links and downloads, and the gate is asked
``problems``   what could not be read, and when it is tried again
``folder``     the synced folder and its `.s3-sync`: files, their journal, snapshots;
               ``folder.target`` keeps `published.json`, and decides whether the pod is
               ready
``s3``         the S3 reader, from requests down to connections
``publisher``  the commands: publish, promote, roll back, list, diff, pin and prune releases
=============  ==================================================================================

A contract in the repository's pyproject.toml lists the allowed imports.
"""
