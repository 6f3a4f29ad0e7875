"""What a run will need: parameters, memory per GPU, steps, images, bytes, hours. No weights are read."""
