"""
Keeps a folder equal to a prefix with Airflow's own S3DagBundle, each time a line asks for it.

Run by the Python of an Airflow 3 with the Amazon provider. `initialize` makes a new bundle, as the
start of the dag-processor and of every task does; `refresh` is what the dag-processor does with
the one that it has. Each is answered by a line.
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
