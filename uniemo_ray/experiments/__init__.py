"""Studies: arms that differ in named settings, paired seeds, claims and verdicts. No Ray."""
