"""Where the files lie that the tests use."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
CAT = ROOT / "gallery" / "photos" / "cat.jpg"
NETWORKS = ROOT / "tests" / "support" / "networks.py"  # for `--model FILE:FACTORY`
