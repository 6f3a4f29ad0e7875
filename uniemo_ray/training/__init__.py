"""Training: objectives (batch to losses), the DeepSpeed engine and a plain loop. No Ray here."""
