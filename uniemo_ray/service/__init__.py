"""Ray Serve application over a model folder."""

import gc

# Importing torch creates many objects, and the garbage collector would scan all of them again and again.
# That takes a sixth of the time in which a replica starts.
gc.set_threshold(50_000, 20, 100)
