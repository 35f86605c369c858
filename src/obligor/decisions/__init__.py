"""Decisions: policy, the pure `decide`, principal reasons, the canonical record, replay and the service."""
