"""The registry of the viewer's layers."""

import pytest

from astroquery_lis.exceptions import InvalidRequestError
from astroquery_lis.survey.layers import ALIASES, LAYERS, as_layer_bands, get_layer, layer_of


def test_there_are_87_listed_layers_and_6_others():
    unlisted = {
        name for name, layer in LAYERS.items() if "not in the viewer's own list" in layer.note
    }
    griz = {f"ls-dr11-south{product}-griz" for product in ("", "-model", "-resid")}
    assert unlisted == griz | {"ls-dr11-south-gri", "ls-dr10-south-gri", "ls-dr10-gri"}
    assert len(LAYERS) == 87 + 6
    assert all(name == layer.name for name, layer in LAYERS.items())


@pytest.mark.parametrize(
    ("name", "bands", "scale", "product", "release", "region"),
    [
        ("ls-dr10", "griz", 0.262, "image", "dr10", "auto"),
        ("ls-dr10-model-grz", "grz", 0.262, "model", "dr10", "auto"),
        ("ls-dr10-south-resid", "griz", 0.262, "resid", "dr10", "south"),
        ("ls-dr11-north", "grz", 0.262, "image", "dr11", "north"),
        ("mzls+bass-dr6", "grz", 0.262, "image", "dr6", "north"),
        ("decaps2", "grizY", 0.262, "image", None, None),
        ("unwise-neo7", "12", 2.75, "image", None, None),
        ("hsc-dr3", "grz", 0.168, "image", None, None),
        ("sdss", "gri", 0.396, "image", None, None),
    ],
)
def test_what_a_layer_is(name, bands, scale, product, release, region):
    layer = get_layer(name)
    assert "".join(layer.bands) == bands
    assert layer.pixel_scale_arcsec == scale
    assert (layer.product, layer.release, layer.region) == (product, release, region)


def test_what_a_layer_serves_truthfully():
    assert get_layer("ls-dr10").invvar
    assert get_layer("ls-dr10-model").maskbits
    residuals = [layer for layer in LAYERS.values() if layer.product == "resid"]
    assert len(residuals) > 20
    assert not any(layer.invvar or layer.maskbits for layer in residuals)
    assert not get_layer("sfd").fits
    assert not get_layer("des-dr1").invvar
    assert "".join(get_layer("decaps2-riy").default_bands) == "riY"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("hsc2", "hsc-dr2"),
        ("dr8-north-model", "ls-dr8-north-model"),
        ("vlass", "vlass1.2"),
        ("sdss2", "sdss"),
        ("mzls bass-dr6", "mzls+bass-dr6"),
    ],
)
def test_old_names(old, new):
    assert get_layer(old).name == new


def test_every_alias_leads_to_a_layer():
    assert set(ALIASES.values()) <= set(LAYERS)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("ls-dr10-grz-model", "spoil the server's answers"),
        ("ls-dr9-grz", "image of zeros"),
        ("", "image of zeros"),
        ("ls-dr11-griz", "ls-dr11-south-griz it has"),
        ("ls-dr1O", r"Did you mean .*ls-dr10"),
        ("LS-DR10x", r"Did you mean ls-dr10"),
        ("unwise-neo8", r"Did you mean unwise-neo"),
        (None, "list_layers"),
        ("fornax", "list_layers"),
    ],
)
def test_other_names_are_refused_and_told_why(name, match):
    with pytest.raises(InvalidRequestError, match=match) as caught:
        get_layer(name)
    assert caught.value.parameter == "layer"


def test_an_unknown_layer_can_be_insisted_on():
    assert get_layer("ibis", allow_unknown=True).bands == ()
    with pytest.raises(InvalidRequestError):
        get_layer("", allow_unknown=True)


@pytest.mark.parametrize(
    ("release", "region", "product", "name"),
    [
        ("dr10", "auto", "image", "ls-dr10"),
        ("dr10", "north", "image", "ls-dr9-north"),
        ("dr10", "south", "model", "ls-dr10-south-model"),
        ("dr11", "north", "resid", "ls-dr11-north-resid"),
        ("dr5", "south", "image", "decals-dr5"),
        ("dr6", "auto", "model", "mzls+bass-dr6-model"),
        ("dr8", "south", "image", "ls-dr8-south"),
    ],
)
def test_layer_of_a_release(release, region, product, name):
    assert layer_of(release, region, product).name == name


def test_a_band_that_a_layer_lacks_is_elsewhere():
    with pytest.raises(
        InvalidRequestError, match=r"ls-dr11-south-griz, ls-dr11-south-gri has i\.$"
    ):
        as_layer_bands("i", get_layer("ls-dr11").bands, "ls-dr11")
    with pytest.raises(InvalidRequestError, match=r"bands of layer sdss are: g, r, i\.$"):
        as_layer_bands("z", get_layer("sdss").bands, "sdss")
