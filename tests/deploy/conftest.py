"""The fixture that ends jobs which outlive their server."""

from tests.infraforge_runner.conftest import folder

__all__ = ["folder"]
