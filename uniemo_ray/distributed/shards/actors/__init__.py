"""Table-to-table actors around the plain classes of `inference`; each loads its model once.

One module per family of models, so that an actor imports no more than it runs.
"""
