import pytest


@pytest.fixture(scope="session")
def sky_tree(served_sky):
    """Folder of the simulated survey."""
    return served_sky.root
