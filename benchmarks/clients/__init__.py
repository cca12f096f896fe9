"""Load clients, each a process of its own: a Plan as JSON on standard input, an Outcome as JSON on standard output."""
