"""Data sets: schemas, readers, transforms and the generated EmoSketch benchmark."""
