"""
Sync a folder with a prefix through Airflow's own S3DagBundle, once for each line of standard input.

Run by the Python of an Airflow 3 with the Amazon provider. `initialize` creates a new bundle, as
the dag-processor does at its start, and every task. `refresh` refreshes that bundle, as the
dag-processor does. Each command is answered with a line.
"""

import sys

from airflow.providers.amazon.aws.bundles.s3 import S3DagBundle


def main() -> None:
    """
    Serve until standard input ends.
    """
    bucket, prefix = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # Airflow logs there
    bundle = None
    for line in sys.stdin:
        if line == "initialize\n":
            bundle = S3DagBundle(name="bench", bucket_name=bucket, prefix=prefix)
            bundle.initialize()
        else:
            assert bundle is not None
            bundle.refresh()
        print("done", file=answers, flush=True)


if __name__ == "__main__":
    main()
