"""Prints the catalogue of errors that stands in docs/errors.md: `python -m hive_errors`."""

import sys

from hive_errors.catalogue import catalogue

if __name__ == "__main__":
    sys.stdout.write(catalogue())
