# The S3 server of charts-snippets/quickstart, if its image cannot be pulled. Context: the folder of the program.
ARG BASE_IMAGE=python:3.13-slim-trixie
FROM ${BASE_IMAGE}
COPY versitygw /usr/local/bin/versitygw
USER 50000:0
ENTRYPOINT ["/usr/local/bin/versitygw"]
