"""The HTTP API: FastAPI over a backend, without Ray."""
