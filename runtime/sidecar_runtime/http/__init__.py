"""
The one port: probes, metrics and the status page.

``endpoint`` answers requests that ``listener`` accepts; ``status`` has the facts as JSON, ``page``
shows them to people.
"""
