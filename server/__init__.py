"""Transport only: HTTP and WebSocket in, events out."""
