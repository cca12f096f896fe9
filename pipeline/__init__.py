"""The way of one inference, from a request to the events it causes. Knows no transport."""
