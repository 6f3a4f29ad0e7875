"""What is counted over a whole training set: coefficients, the emotion space, moments (sections 2 and 4)."""
