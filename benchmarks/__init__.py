"""Forgeline beside a bare Tornado passthrough, against a mock upstream; `python -m benchmarks` runs it."""
