"""`python -m superpose.cli`."""

from superpose.cli import main

main()
