"""
What Spark runs: it logs in once, and reads a file from HDFS again and again.
"""

from __future__ import annotations

import sys
import time

from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
user = spark._jvm.org.apache.hadoop.security.UserGroupInformation.getLoginUser()
print("user", user.getUserName(), user.getAuthenticationMethod().toString(), flush=True)
while True:
    try:
        print("rows", spark.read.csv(sys.argv[1]).count(), flush=True)
    except Exception as failure:  # noqa: BLE001 - the test decides
        print("failed", *str(failure).splitlines()[:2], flush=True)
    time.sleep(0.1)
