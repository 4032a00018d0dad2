"""What the documentation says was executed is what the tests of modes execute."""

import ast
import re
from pathlib import Path

from astroquery_lis.jwst_stage.pipelines import EXP_TYPES

PAGE = Path(__file__).parents[2] / "docs" / "jwst_stage.rst"
FROM_UNCAL, FROM_RATE, PLANNED = "executed", "executed from rate", "planned only"


def executed_in_tests():
    """Return what modules with a constant EXECUTED reduce, by where they begin.

    A module that simulates uncalibrated exposures reduces them from there; the chain's own do.
    """
    types = {FROM_UNCAL: {"NRC_IMAGE"}, FROM_RATE: set()}
    for path in Path(__file__).parent.glob("test_modes*.py"):
        tree = ast.parse(path.read_text())
        kinds = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.keyword)]
        begin = FROM_UNCAL if "uncal=True" in kinds else FROM_RATE
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXECUTED":
                types[begin] |= set(ast.literal_eval(node.value))
    return types


def test_the_table_of_types_tells_what_was_executed():
    table = {FROM_UNCAL: set(), FROM_RATE: set(), PLANNED: set()}
    for line in PAGE.read_text().splitlines():
        if match := re.search(r" (executed|executed from rate|planned only)$", line):
            names = set(re.findall(r"``([A-Z]+_[A-Z0-9-]+)``", line))
            table[match[1]].update(names)
    planned = table.pop(PLANNED)
    assert table == executed_in_tests()
    assert not (table[FROM_UNCAL] | table[FROM_RATE]) & planned
    assert table[FROM_UNCAL] | table[FROM_RATE] | planned <= set(EXP_TYPES)
