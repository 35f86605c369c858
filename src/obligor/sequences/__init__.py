"""Sequences: events as tokens, encoders over timelines, their training and their serving."""
