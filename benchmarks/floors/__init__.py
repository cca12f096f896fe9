"""Floors: minimal programs for the same work, which Forgeline is compared to."""
