"""Make associations with `jwst.associations`, in a process of its own: JSON in, JSON out.

Run by its path, so that nothing else of the package is imported.
"""

import contextlib
import json
import sys


def main():
    """Read a list of associations, and write each as the `jwst` package completes it."""
    with contextlib.redirect_stdout(sys.stderr):
        answer = [_complete(given) for given in json.load(sys.stdin)]
    json.dump(answer, sys.stdout)


def _complete(given):
    from jwst.associations import load_asn
    from jwst.associations.asn_from_list import asn_from_list
    from jwst.associations.lib.rules_level3_base import DMS_Level3_Base

    try:
        product = given["products"][0]
        complete = dict(given)
        if given["asn_rule"] == "DMS_Level3_Base":
            members = [(m["expname"], m["exptype"]) for m in product["members"]]
            made = asn_from_list(
                members, rule=DMS_Level3_Base, product_name=product["name"], with_exptype=True
            )
            complete = {**json.loads(made.dump(format="json")[1]), **given}
        read = load_asn(json.dumps(complete))
        names = [m["expname"] for m in read["products"][0]["members"]]
        if names != [m["expname"] for m in product["members"]]:
            return {"error": f"read back with members {names}"}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    del complete["products"]
    return {name: value for name, value in complete.items() if value is not None}


if __name__ == "__main__":
    main()
