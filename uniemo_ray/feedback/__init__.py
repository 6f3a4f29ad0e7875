"""The method's own logic: plan, filter, mixing, coefficients, emotion space. Plain Python, no Ray."""
