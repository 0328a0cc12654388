"""What leaves the draws: files that keep every bit, and pictures of what was drawn."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

from inference import Draws
from inference.results.export import to_datatree
from inference.results.plots import plot_posterior, plot_predictive, plot_trace
from ppl import Masked, Target, errors
from tests.results import (
    MU,
    OBSERVED,
    UP,
    X,
    Y,
    everything,
    regression,
)

KEY = jax.random.key(0)
AXES = {"chain_axis": 0, "draw_axis": 1}
# -- export ---------------------------------------------------------------------------------------


def test_netcdf_keeps_every_bit(tmp_path):
    seen = Masked(OBSERVED["flat"], jnp.array([True, False, True]))
    target = Target(everything, (), {"sub": OBSERVED["sub"], "flat": seen})
    choices = {
        "mu": np.float32(MU),
        "up": UP,
        "a": {"very": {"deep": np.array([[[np.nan, np.inf], [-0.0, 1e-310]]] * 2)[:, [0, 1, 1]]}},
    }
    stats = {
        "nuts/accept": np.abs(MU),
        "nuts/diverging": UP == 1,
        "nuts/steps": UP,
        "mh/depth": UP,
        "nuts/depth": UP + 1,
    }
    draws = Draws(choices, stats, target, "interrupted")
    prior = {"mu": MU[:1], "flat": np.zeros((1, 3, 3)), "sub": {"part": np.zeros((1, 3, 2, 2))}}
    tree = to_datatree(
        draws,
        posterior_predictive={"flat": np.ones((2, 3, 3))},
        log_likelihood={"flat": np.full((2, 3, 3), 0.1)},
        prior=prior,
    )
    tree.to_netcdf(tmp_path / "draws.nc", engine="h5netcdf")
    with xarray.open_datatree(tmp_path / "draws.nc", engine="h5netcdf") as read:
        expected = {
            "posterior": {
                "mu": choices["mu"],
                "up": UP,
                "a.very.deep": choices["a"]["very"]["deep"],
            },
            "sample_stats": {
                "acceptance_rate": np.abs(MU),
                "diverging": UP == 1,
                "n_steps": UP,
                "mh.tree_depth": UP,
                "nuts.tree_depth": UP + 1,
            },
            "observed_data": {
                "sub.part": np.asarray(OBSERVED["sub"]["part"]),
                "flat": np.asarray(seen.value),
                "flat_observed": np.asarray(seen.mask),
            },
            "posterior_predictive": {"flat": np.ones((2, 3, 3))},
            "log_likelihood": {"flat": np.full((2, 3, 2), 0.1)},
            "prior": {"mu": MU[:1]},
            "prior_predictive": {"flat": prior["flat"], "sub.part": prior["sub"]["part"]},
        }
        assert set(read.children) == set(expected)
        for group, values in expected.items():
            assert set(read[group].data_vars) == set(values)
            for name, value in values.items():
                stored = read[group][name]
                assert stored.dtype == value.dtype and stored.values.tobytes() == value.tobytes()
        assert read["posterior"]["mu"].dims == ("chain", "draw")
        assert read["sample_stats"]["n_steps"].attrs["kernel"] == "nuts"
        assert read.attrs["status"] == "interrupted" and read.attrs["inference_library"] == "giry"


def test_addresses_that_xarray_cannot_tell_apart_are_refused():
    with pytest.raises(errors.InvalidArgument, match='"a", "b" has no name of its own'):
        to_datatree(Draws({"a.b": MU, "a": {"b": MU}}))
    with pytest.raises(errors.InvalidArgument, match='"a/b" has no name of its own'):
        to_datatree(Draws({"a/b": MU}))


@pytest.mark.parametrize(
    ("module", "extra", "call"),
    [
        ("arviz_base", "arviz", lambda: to_datatree(Draws({"mu": MU}))),
        ("matplotlib.figure", "plots", lambda: plot_trace(Draws({"mu": MU}))),
    ],
)
def test_a_missing_package_names_its_extra(monkeypatch, module, extra, call):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(errors.PPLError) as caught:
        call()
    lines = str(caught.value).splitlines()
    assert lines[0].endswith(f"needs the package {module.split('.')[0]}, which is not installed.")
    assert "test_export.py" in lines[1] and lines[-1] == f"  fix:      pip install 'giry[{extra}]'"


# -- pictures -------------------------------------------------------------------------------------


def heights(patch):
    """The heights of the bins of a histogram that is drawn as a line."""
    return patch.get_xy()[1:-1:2, 1]


def test_trace_plot_draws_the_chains_and_their_ranks():
    diverging = np.zeros((2, 40), bool)
    diverging[1, 7] = True
    x = np.arange(80.0).reshape(2, 40)  # the chains do not overlap
    figure = plot_trace(Draws({"a": x, "b": x[::-1]}, {"diverging": diverging}), ["b"])
    trace, ranks = figure.axes
    for line, chain in zip(trace.lines, x[::-1], strict=False):
        assert line.get_ydata().tolist() == chain.tolist()
    assert trace.lines[-1].get_label() == "diverging"
    assert trace.lines[-1].get_xdata().tolist() == [7]
    first, second = (heights(patch) for patch in ranks.patches)
    assert first.tolist() == [0] * 10 + [4] * 10 and second.tolist() == [4] * 10 + [0] * 10
    assert ranks.lines[-1].get_ydata() == [2, 2]  # where all heights are when they agree


def test_posterior_plot_shows_masses_mean_and_interval_and_says_what_is_left_out():
    count = np.array([[1, 2, 2, 5]])
    some = np.array([[1.0, np.nan, 2.0, 3.0]])
    figure = plot_posterior(Draws({"n": count, "x": some}), prob=0.5)
    first, second = figure.axes
    bars = {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in first.patches}
    assert bars == pytest.approx({1: 0.25, 2: 0.5, 5: 0.25})
    assert first.get_title() == "n: 2.5 [1.75, 2.75]"
    assert second.get_title() == "x: 2 [1.5, 2.5], 1 not finite"
    many = plot_posterior(Draws({"theta": np.zeros((1, 4, 30))}))
    assert "12 of 30 scalars" in many.get_suptitle()
    with pytest.raises(errors.AddressNotFound, match='did you mean "n"'):
        plot_posterior(Draws({"n": count}), ["N"])


def test_predictive_plot_compares_the_observed_elements():
    mask = jnp.array([True, False, True])
    target = Target(regression, (X,), {"y": Masked(Y, mask)})
    replicates = np.arange(60.0).reshape(2, 10, 3)
    (axis,) = plot_predictive({"y": replicates}, target).axes
    *drawn, shown = axis.lines
    assert shown.get_xdata().tolist() == [-1.0, 0.5] and shown.get_ydata().tolist() == [0.5, 1.0]
    assert [line.get_xdata().tolist() for line in drawn] == [
        [row[0], row[2]] for row in replicates.reshape(20, 3)
    ]
    with pytest.raises(errors.ShapeError, match="not of the shape of the data"):
        plot_predictive({"y": replicates[..., :2]}, target)
    with pytest.raises(errors.InvalidArgument, match='no predictions of "y"'):
        plot_predictive({"z": replicates}, target)
