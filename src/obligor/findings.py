"""What a look at a configuration finds: each thing that was looked at, how it stands, and what to do about it."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["Finding", "fine", "problem", "warning"]


class Finding(NamedTuple):
    """One thing that was looked at."""

    subject: str
    level: Literal["fine", "warning", "problem"]
    text: str
    remedy: str = ""


def fine(subject: str, text: str) -> Finding:
    """Return that all is well."""
    return Finding(subject, "fine", text)


def warning(subject: str, text: str, remedy: str) -> Finding:
    """Return what works now and will hurt some day."""
    return Finding(subject, "warning", text, remedy)


def problem(subject: str, text: str, remedy: str) -> Finding:
    """Return what does not work, or would lose something."""
    return Finding(subject, "problem", text, remedy)
