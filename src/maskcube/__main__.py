"""``python -m maskcube``: the command line."""

from maskcube.cli import main

main(prog_name="maskcube")
