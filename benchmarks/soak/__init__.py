"""The soak: minutes of mixed load on a real Forgeline, with checks for leaks."""
