"""Kills trainings and preparations at random points; `python -m tests.kill --help` says how to run it."""
