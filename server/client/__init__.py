"""The command line: a separate program that talks to a server over HTTP and imports nothing of it but `run`."""
