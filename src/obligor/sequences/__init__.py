"""Sequence models: an entity's events in order, as tokens, through an encoder whose state follows event by event."""
