"""Features: definitions, compiled to a plan, evaluated by one set of kernels offline and online."""
