"""Load clients, one process each: they read a Plan as JSON on standard input, and print an Outcome as JSON."""
