"""Plain torch modules, single device: encoder, heads, fusion, conditioning, the assembled model."""
