"""
Keeps a folder in sync with an S3 prefix.

=============  ==================================================================================
``command``    the parts joined: the daemon that the runtime's loop runs, its volume, and the
               releases that consumers request
``cycle``      the story of one cycle, and what is said about it
``plan``       what a cycle has to do, or why nothing yet: ``decide``; what is kept
``holds``      what holds a change back, and until when: what settles, the brake on deletions
``listing``    the source ``listing``: every object under the prefix becomes a file
``release``    the source ``release``: the format, signatures, how a release reaches the
               volume, and which releases consumers requested
``build``      a tree is brought up to date, and the gate is asked
``layout``     what consumers see, in place or as snapshots, and the only writer of it
``unread``     what could not be read, and when it is tried again
``volume``     the folder, its lock and its staging; ``tree``: the files of one tree, and
               which are damaged; ``journal``: the list of them
``published``  `published.json`; ``readiness``: what it means for the pod, and `/readyz`
``s3``         the S3 reader, from requests down to connections
``publisher``  the commands: publish, promote, roll back, list, diff, pin and prune releases
=============  ==================================================================================

A contract in the repository's pyproject.toml lists the allowed imports.
"""
