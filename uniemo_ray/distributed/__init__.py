"""Where Ray comes in: the plain functions and classes of the package, placed on many processes."""
