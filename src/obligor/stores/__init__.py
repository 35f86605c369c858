"""Stores: adapters of the storage protocols that the rooms own, one folder each."""
