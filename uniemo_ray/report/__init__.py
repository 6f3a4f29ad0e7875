"""What a run leaves for people: `summary.json`, `report.html`, the terminal table and the model card."""
