"""What the documentation says was executed is what the tests of modes execute."""

import ast
import re
from pathlib import Path

from astroquery_lis.jwst_stage.planning.pipelines import EXP_TYPES

PAGE = Path(__file__).parents[2] / "docs" / "jwst_stage.rst"


def executed_in_tests():
    """Return the types that modules with a constant EXECUTED reduce, and the chain's own."""
    types = {"NRC_IMAGE"}
    for path in Path(__file__).parent.glob("test_modes*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXECUTED":
                types |= set(ast.literal_eval(node.value))
    return types


def test_the_table_of_types_tells_what_was_executed():
    told, planned = set(), set()
    for line in PAGE.read_text().splitlines():
        if re.search(r" (executed|executed from rate|planned only)$", line):
            names = set(re.findall(r"``([A-Z]+_[A-Z0-9-]+)``", line))
            (planned if line.endswith("planned only") else told).update(names)
    assert told == executed_in_tests()
    assert not told & planned
    assert told | planned <= set(EXP_TYPES)
