# For: `s3-sync publish --gate airflow --wait` in CI: your own Airflow image, with s3-sync in a separate environment.
# Airflow 2.11 or 3 with Python 3.11 or later. Context: the root of this repository.
# docker build --file charts-snippets/ci/publisher.Dockerfile --build-arg AIRFLOW_IMAGE=registry.example.com/airflow:1.2.3 \
#     --tag registry.example.com/dag-publisher:1.2.3 .
ARG AIRFLOW_IMAGE=docker.io/apache/airflow:3.3.2-python3.12

FROM ${AIRFLOW_IMAGE} AS build
# The image's user cannot write to /opt; the final stage switches back.
# hadolint ignore=DL3002
USER 0
# For builds behind a mirror of the package index: --build-arg PIP_INDEX_URL.
ARG PIP_INDEX_URL=
# PIP_USER: the official image sets it, but these packages are not installed for a user.
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_USER=0
RUN python3 -m venv --without-pip /opt/s3-sync
COPY requirements/build.txt requirements/s3-sync.txt /src/requirements/
RUN python3 -m pip --python /opt/s3-sync/bin/python install --no-cache-dir --no-compile \
        --require-hashes -r /src/requirements/s3-sync.txt \
    && python3 -m pip install --no-cache-dir --no-compile --require-hashes --target /opt/backend \
        -r /src/requirements/build.txt
COPY runtime /src/runtime
COPY sidecars/s3-sync /src/sidecars/s3-sync
RUN PYTHONPATH=/opt/backend python3 -m pip --python /opt/s3-sync/bin/python install --no-cache-dir \
        --no-compile --no-deps --no-build-isolation /src/runtime /src/sidecars/s3-sync

FROM ${AIRFLOW_IMAGE}
COPY --from=build /opt/s3-sync /opt/s3-sync
# Last on PATH, so that `python` remains the interpreter with Airflow.
ENV PATH=$PATH:/opt/s3-sync/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 50000:0
ENTRYPOINT ["/opt/s3-sync/bin/s3-sync"]
CMD []
