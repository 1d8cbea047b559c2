# A stand-in for apache/airflow where no image registry can be reached: a real Airflow in the same places (Python of the
# system, Airflow among the packages of its user, /entrypoint, through which the chart's probes go).
# Context: the repository root. `tests/images/airflow-base` builds it.
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}
ENV AIRFLOW_HOME=/opt/airflow \
    HOME=/home/airflow \
    PATH=/home/airflow/.local/bin:/usr/local/bin:/usr/bin:/bin \
    PIP_USER=true \
    PYTHONUSERBASE=/home/airflow/.local
RUN echo airflow:x:50000:0::/home/airflow:/bin/sh >> /etc/passwd \
    && install -d -o 50000 -g 0 -m 775 /home/airflow /opt/airflow \
    && printf '#!/bin/sh\nexec "$@"\n' > /entrypoint && chmod 755 /entrypoint
ARG VERSION=2.11
COPY requirements/airflow-${VERSION}.txt /requirements.txt
RUN python3 -m pip install --quiet --no-cache-dir --no-deps --require-hashes --break-system-packages \
        -r /requirements.txt
USER 50000
