"""What maskcube costs beside its peers, all in one run: see ``scripts/bench --help``."""
