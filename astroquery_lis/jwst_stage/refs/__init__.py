"""Reference files: found, fetched, and resolved for every task."""
