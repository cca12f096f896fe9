"""The command line: a program of its own that talks to a server over HTTP, and knows nothing of its inside."""
