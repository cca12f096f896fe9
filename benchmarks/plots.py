from pathlib import Path
from benchmarks.results import Results
def draw(found: Results, folder: Path) -> None:
    pass
