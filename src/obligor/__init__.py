"""Obligor: from raw events to an explained, replayable credit decision."""

__version__ = "0.1.0"
