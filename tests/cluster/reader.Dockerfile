# What the pods run instead of Airflow, and the programs that ask for tickets there. Context: this folder.
ARG BASE_IMAGE=python:3.13-slim-trixie
FROM ${BASE_IMAGE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends krb5-user \
    && rm -rf /var/lib/apt/lists/*
COPY reader.py /reader.py
USER 50000:0
ENTRYPOINT ["python3", "/reader.py"]
CMD ["idle"]
