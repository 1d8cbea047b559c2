"""One message a day instead of fifty."""

from airflow.sdk import BaseOperator


class SlackDigestOperator(BaseOperator):
    """Collect messages and send them together."""

    def __init__(self, *, channel: str, **kwargs):
        super().__init__(**kwargs)
        self.channel = channel

    def execute(self, context):
        """Send the digest."""
        self.log.info("digest to %s", self.channel)
