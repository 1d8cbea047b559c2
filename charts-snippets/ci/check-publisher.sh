#!/usr/bin/env bash
# Tries what `s3-sync publish` needs of a store and a role, in the environment of your publisher:
#
#   check-publisher.sh s3://my-airflow-bucket/dags-releases
#
# It publishes for the first time, publishes a change, and rolls back, below `.s3-sync/` in the prefix, which no pod ever
# shows. Exit code: 0 if all of it worked, else that of the command that failed, which has said what is lacking.
set -euo pipefail

url=${1:?usage: check-publisher.sh s3://BUCKET/PREFIX}
trial=${url%/}/.s3-sync/check-$(date +%s)-$$
folder=$(mktemp -d)
python=$(sed -n '1s/^#!//p' "$(command -v s3-sync)") # of s3-sync, which has boto3

clean() {
  rm -rf "$folder"
  "$python" -c '
import sys, boto3
_, _, bucket, prefix = sys.argv[1].split("/", 3)
client = boto3.client("s3")
for found in client.list_objects_v2(Bucket=bucket, Prefix=prefix + "/").get("Contents", ()):
    client.delete_object(Bucket=bucket, Key=found["Key"])
' "$trial" 2>/dev/null || echo "??    what was written stays, because this role cannot delete it: $trial"
}
trap clean EXIT

try() { # WHAT COMMAND…
  if "${@:2}" >"$folder/said"; then
    echo "ok    $1"
  else
    local code=$?
    echo "FAIL  $1"
    exit "$code"
  fi
}

mkdir "$folder/dags"
echo first >"$folder/dags/trial.txt"
try "a first release: If-None-Match is obeyed" s3-sync publish "$folder/dags" "$trial" --gate off
echo second >"$folder/dags/trial.txt"
try "the next release: If-Match is obeyed" s3-sync publish "$folder/dags" "$trial" --gate off
try "a rollback: releases are read again" s3-sync rollback previous "$trial"
echo "This store and role can publish to $url"
