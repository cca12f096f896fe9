"""The OpenAPI 3.1 document, made from the types that validate requests and from types of the responses."""
