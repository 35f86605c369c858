"""Engines that carry tasks out on a cluster: adapters, one folder each."""
