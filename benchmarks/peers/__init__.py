"""Gateways that people use, as further targets beside the floors and Forgeline."""
