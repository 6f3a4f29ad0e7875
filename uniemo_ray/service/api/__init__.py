"""The HTTP interface: plain FastAPI over a backend; no Ray in here."""
