"""
Tells what Airflow's own configuration says; run by Airflow's own Python.

Standard input is JSON: a list of cases, each with `environ`, the text of airflow.cfg as
`file`, and `options`, a list of [section, key]. Standard output is a JSON list with a
list of values for each case, or the name of the exception.
"""

import json
import os
import sys
from typing import Any

from airflow import configuration


def told(case: dict[str, Any]) -> Any:
    """
    Return what a newly started Airflow would answer to `airflow config get-value`.
    """
    os.environ.clear()
    os.environ.update(case["environ"])
    conf = configuration.conf
    try:
        conf.clear()  # what was in airflow.cfg; its defaults are elsewhere
        conf.read_string(case["file"])
        return [conf.get(*option) for option in case["options"]]
    except Exception as error:  # noqa: BLE001 - the answer reports it
        return type(error).__name__


if __name__ == "__main__":
    cases = json.load(sys.stdin)
    print(json.dumps([told(case) for case in cases]))
