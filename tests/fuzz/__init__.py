"""Mutated inputs for every reader of files from outside; `python -m tests.fuzz --help` says how to run it."""
