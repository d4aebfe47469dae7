"""A side branch on the same frames that the policy sees: what is in the picture, and where."""
