"""The kernels: every aggregate defined once, for backfill, training, replay and the service alike.

A kernel is driven by a plan's arrays (`layout.Layout`); nothing is compiled from a plan. `offline` and `online` are the
two ways in; both add the rows of a source piece by piece (`windows`), to cells (`cells`), passes (`passes` and what it
names) and keys (`keys`), by tiles where an entity has very many rows (`tiles`).
"""
