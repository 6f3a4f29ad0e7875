"""Ray Serve application over a model folder."""

import gc

# As torch and its company are imported, the collector would look through all their objects time and again:
# a sixth of the time that a replica takes to start.
gc.set_threshold(50_000, 20, 100)
