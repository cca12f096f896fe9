"""Jobs that outlive their server end with the test here, too."""

from tests.infraforge_runner.conftest import folder

__all__ = ["folder"]
