"""Studies: arms that differ in named settings, paired seeds, claims, and what the numbers say of them. No Ray."""
