"""Logs as JSON lines on stderr, one fact per field; set up once per process by its composition root.

What bites: structlog without any of this writes to stdout, into whatever JSON stands there.
"""

import logging
import sys

import structlog


def configure_logging(service: str) -> None:
    """Send structlog and the standard library's loggers to stderr as JSON lines that name the service."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    handler = logging.StreamHandler(sys.stderr)
    formatter = structlog.stdlib.ProcessorFormatter(
        processor=structlog.processors.JSONRenderer(), foreign_pre_chain=shared
    )
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    # A line per request says nothing that a metric does not, and its address may carry a password.
    logging.getLogger("httpx").setLevel(logging.WARNING)


def show_warnings_only() -> None:
    """For a command that runs what logs as a service: warnings and worse on stderr, for people; stdout is the result's."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
