"""Ray Serve application over a model folder."""
