"""The log of the service: one JSON object a line, written at once."""

import json
import logging
from datetime import UTC, datetime

LOGGER = "uniemo_ray.service"
FIELDS = "request"
"""Attribute of a record with members of a request's line: request_id, token, method, route, status, ms."""


def log_fields(record: logging.LogRecord) -> dict[str, str | int | float]:
    """The members of a record's line."""
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    fields: dict[str, str | int | float] = {
        "time": time.replace("+00:00", "Z"),
        "level": record.levelname,
        "message": record.getMessage(),
    }
    return fields | getattr(record, FIELDS, {})


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON, with its stack trace in a member."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without a line break."""
        fields = log_fields(record)
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        return json.dumps(fields)


class ServeLog(logging.Handler):
    """Passes records on to the log of the Serve replica (`ray.serve`), and has them written at once.

    Serve may hold a thousand lines back (RAY_SERVE_THROUGHPUT_OPTIMIZED).
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, with the members of its line as attributes, which Serve's JSON has as members."""
        copy = logging.makeLogRecord(vars(record))
        copy.__dict__.pop(FIELDS, None)
        copy.__dict__ |= {k: v for k, v in log_fields(record).items() if k != "message"}
        copy.__dict__["skip_context_filter"] = True  # Serve's own `route` is the prefix of the application
        for handler in logging.getLogger("ray.serve").handlers:
            handler.handle(copy)
            handler.flush()


def log_to(handler: logging.Handler, *loggers: str) -> None:
    """Write the lines of these loggers, and of no other, to one handler."""
    for name in loggers:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.handlers[:] = [handler]
        logger.propagate = False


def log_to_serve() -> None:
    """Write the lines of this process, a Serve replica, to the replica's log."""
    log_to(ServeLog(), LOGGER)


def log_to_stderr() -> None:
    """Write the lines of this process, which is its own web server, to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    log_to(handler, LOGGER, "uvicorn")
