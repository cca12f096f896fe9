"""The API, described (OpenAPI 3.1): from the types that check requests, and types of what is answered."""
