"""Digital loans in Nigeria (the public SuperLender data): a lender project on real loans."""
