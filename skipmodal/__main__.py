"""`python -m skipmodal`."""

from skipmodal.cli.app import main

main()
