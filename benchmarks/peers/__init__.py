"""Other gateways as targets, beside the floors and Forgeline."""
