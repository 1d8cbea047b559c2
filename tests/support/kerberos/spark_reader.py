"""
The program that Spark runs: it logs in once, and reports its ticket repeatedly.
"""

from __future__ import annotations

import time

from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
user = spark._jvm.org.apache.hadoop.security.UserGroupInformation.getLoginUser()
new_array = spark.sparkContext._gateway.new_array
ticket_of = user.getClass().getDeclaredMethod("getTGT", new_array(spark._jvm.Class, 0))
ticket_of.setAccessible(True)
print("user", user.getUserName(), user.getAuthenticationMethod().toString(), flush=True)
while True:
    try:
        ticket = ticket_of.invoke(user, new_array(spark._jvm.Object, 0))
        ends_at = ticket.getEndTime().getTime() / 1000
        if ends_at < time.time():
            print("failed: the ticket has ended", flush=True)
        print("ticket", ends_at, flush=True)
    except Exception as failure:  # noqa: BLE001 - the test decides
        print("failed:", *str(failure).splitlines()[:2], flush=True)
    time.sleep(0.1)
