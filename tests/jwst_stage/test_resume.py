"""What was foreseen for the real chain, and what it then did; and what a second run would do."""

import pytest
from astropy.io import fits

from astroquery_lis.jwst_stage.states import UNHEEDED, Fingerprints, assess, key
from astroquery_lis.jwst_stage.tasks import Reduction, read_records


def test_references_are_those_that_the_products_name(chain):
    """The oracle is what the pipeline wrote into the headers of its products."""
    for task in chain.plan.tasks:
        if task.stage == 3:
            # Mosaics do not name those of the catalogue beside them.
            continue
        header = fits.getheader(chain.output_dir / task.name)
        foreseen = chain.resolution.references[task.name]
        named = {
            card.keyword[2:].lower(): card.value.removeprefix("crds://")
            for card in header.cards
            if card.keyword.startswith("R_") and card.value.startswith("crds://")
        }
        # Headers shorten the names of types to six letters, and keep those of stage 1.
        names = {entry["name"] for entry in foreseen.values()} - {"N/A"}
        assert names <= set(named.values()), task.name
        if task.stage == 1:
            assert names == set(named.values())


def test_parameters_are_those_that_the_pipeline_used(chain):
    """The oracle is what the pipeline logged of itself while it ran."""
    records = read_records(chain.output_dir)
    for task in chain.plan.tasks:
        used = records[task.name].parameters["steps"]
        for step, values in chain.resolution.parameters[task.name].items():
            heeded = {name: value for name, value in values.items() if name not in UNHEEDED}
            assert {name: used[step][name] for name in heeded} == heeded, (task.name, step)


@pytest.mark.parametrize("resolved", [True, False])
def test_nothing_is_left_to_do(chain, resolved):
    states = assess(Reduction(chain.plan, chain.output_dir, chain.resolution if resolved else None))
    assert {state.state for state in states.values()} == {"done"}


def test_the_fingerprint_of_the_record_is_that_of_the_plan(chain):
    made = Fingerprints(Reduction(chain.plan, chain.output_dir, chain.resolution))
    for name, record in read_records(chain.output_dir).items():
        assert key(made.of(name)) == key(record.fingerprint)
        history = "\n".join(fits.getheader(chain.output_dir / name)["HISTORY"])
        assert key(record.fingerprint) in history.replace("\n", "")


def test_a_truncated_product_is_found_out(chain, chain_copy):
    cal = chain.plan.tasks[-2].name
    path = chain_copy / cal
    path.write_bytes(path.read_bytes()[:-2880])
    states = assess(Reduction(chain.plan, chain_copy, chain.resolution))
    assert states[cal].state == "stale"
    assert f"{cal} changed after it was made" in states[cal].reason
    assert {s.state for name, s in states.items() if name != cal} == {"done"}
