"""
Tells which names an Airflow keeps for itself, and the resources of a DAG of each name;
run by Airflow's own Python.

Standard input is a JSON list of more names. Standard output is JSON: `details`, kind of
resource → its prefix and actions; `resources`, name → the resource of each kind.
"""

import json
import sys
from importlib import import_module

if __name__ == "__main__":
    # The module that FAB's security manager asks.
    try:
        of_fab = import_module("airflow.providers.fab.www.security.permissions")
    except ImportError:
        of_fab = import_module("airflow.security.permissions")
    kinds = of_fab.RESOURCE_DETAILS_MAP
    names = {text for text in vars(of_fab).values() if isinstance(text, str)}
    names = {text for text in names if len(text) < 64 and text.isprintable()}
    names |= {prefix + "x" for prefix in of_fab.PREFIX_LIST}
    names |= set(json.load(sys.stdin))
    told = {
        "details": {
            kind: [one["prefix"], sorted(one["actions"])] for kind, one in kinds.items()
        },
        "resources": {
            name: [of_fab.resource_name(name, kind) for kind in kinds] for name in names
        },
    }
    print(json.dumps(told))
