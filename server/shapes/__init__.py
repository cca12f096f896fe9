"""API shapes of others, read into our own request and written from our own events. They know no HTTP."""
