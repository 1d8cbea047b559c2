"""
The one port: probes, metrics and the status page.

``endpoint`` answers the requests that ``listener`` accepts; ``status`` collects the
facts as JSON and renders them as HTML.
"""
