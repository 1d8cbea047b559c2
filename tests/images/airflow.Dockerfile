# A stand-in for apache/airflow:2.11.2-python3.11 where no image registry can be reached: a real Airflow in the same
# places (Python of the system, Airflow among the packages of its user), on a base with Python 3.11.
# Context: the repository root. `tests/images/airflow-base` builds it.
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}
ENV AIRFLOW_HOME=/opt/airflow \
    HOME=/home/airflow \
    PATH=/home/airflow/.local/bin:/usr/local/bin:/usr/bin:/bin \
    PIP_USER=true \
    PYTHONUSERBASE=/home/airflow/.local
RUN echo airflow:x:50000:0::/home/airflow:/bin/sh >> /etc/passwd \
    && install -d -o 50000 -g 0 -m 775 /home/airflow /opt/airflow
COPY requirements/airflow-2.11.txt /requirements.txt
RUN python3 -m pip install --quiet --no-cache-dir --no-deps --require-hashes --break-system-packages \
        -r /requirements.txt
USER 50000
