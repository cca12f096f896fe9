"""Measures: callables that run one round of one side and return an Outcome."""
