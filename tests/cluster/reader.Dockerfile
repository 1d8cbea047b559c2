# Runs in the pods instead of Airflow, with the programs that request tickets. Context: tests/support.
ARG BASE_IMAGE=python:3.13-slim-trixie
FROM ${BASE_IMAGE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends krb5-user \
    && rm -rf /var/lib/apt/lists/*
COPY revisions.py /reader.py
USER 50000:0
ENTRYPOINT ["python3", "/reader.py"]
CMD ["idle"]
