"""The encoders' arithmetic: float64 sums of float32 weights, in one order that no machine changes."""
