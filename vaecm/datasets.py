"""Real data sets, and the market that comes with the package."""

from pathlib import Path


def example_market():
    """The folder of the embedded market, for `load_market`."""
    for folder in (Path(__file__).parent / "_market", Path(__file__).parent.parent / "data" / "market"):
        if (folder / "manifest.json").is_file():
            return folder
    raise FileNotFoundError("the embedded market is not there: install the package again")
