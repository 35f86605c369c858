"""A lender project: what can happen, what is looked at, predicted, scored and decided."""
