"""Columns of pandas and xarray as data: the numbers that stand there, or what to do."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray

from ppl import Masked, Target, errors, gen, sample

pandas = pytest.importorskip("pandas")
TABLE = pandas.DataFrame(
    {
        "real": [0.5, 1.5, 2.5],
        "count": [1, 2, 3],
        "whole": pandas.array([1, 2, 3], dtype="Int64"),
        "real with NaN": [0.5, np.nan, 2.5],
        "whole with NA": pandas.array([1, 2, None], dtype="Int64"),
        "real with NA": pandas.array([0.5, None, 2.5], dtype="Float64"),
        "flags with NA": pandas.array([True, None, False], dtype="boolean"),
        "text": ["a", "b", "c"],
        "text with NA": ["a", None, "c"],
        "objects": pandas.Series([1, 2, 3], dtype=object),
        "category": pandas.Categorical(["a", "b", "a"]),
        "category with NA": pandas.Categorical(["a", None, "a"]),
        "dates": pandas.to_datetime(["2020-01-01", "2020-01-03", "2020-01-04"]),
        "times": pandas.to_timedelta([1, 2, 3], unit="D"),
    }
)
MARK, LEAVE, CODES, TEXT = "Masked(", "dropna", "cat.codes", "factorize"
WRONG = {
    "real with NaN": ("missing at [1] (1 of 3)", MARK, LEAVE),
    "whole with NA": ("missing at [2] (1 of 3)", MARK, LEAVE),
    "real with NA": ("missing at [1] (1 of 3)", MARK, LEAVE),
    "flags with NA": ("", MARK, LEAVE),
    "text": ("", TEXT, TEXT),
    "text with NA": ("", MARK, LEAVE),
    "objects": ("", TEXT, TEXT),
    "category": ("", CODES, CODES),
    "category with NA": ("", CODES, CODES),
    "dates": ("", "timedelta64", "timedelta64"),
    "times": ("", "timedelta64", "timedelta64"),
}


@gen
def reals(x):
    sample("y", dist.Normal(jnp.asarray(x, float), 1.0))


@gen
def counts(x):
    sample("y", dist.Poisson(jnp.asarray(x, float)))


REAL, COUNT = np.array([0.5, 1.5, 2.5]), np.array([1, 2, 3])


@pytest.mark.parametrize("model", [reals, counts], ids=lambda m: m.name)
@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_number_is_told_with_a_remedy(name, model):
    told, observed, given = WRONG[name]
    column, y = TABLE[name], REAL if model is reals else COUNT
    for make, fix in (
        (lambda: Target(model, (COUNT,), {"y": column}), observed),
        (lambda: Target(model, (column,), {"y": y}), given),
    ):
        with pytest.raises((errors.DtypeError, errors.SupportError)) as found:
            make()
        text = str(found.value)
        assert told in text and fix in text.split("fix:")[1] and "test_tables.py" in text
        assert len(text.splitlines()) <= 12


@pytest.mark.parametrize("index", [[0, 1, 2], [2, 0, 1], ["b", "a", "a"]])
def test_values_are_taken_as_they_stand(index):
    column = pandas.Series(REAL, index=index)
    target = Target(reals, (column,), {"y": column})
    assert target.observations["y"].tolist() == target.args[0].tolist() == REAL.tolist()
    for name in ("count", "whole"):
        target = Target(counts, (TABLE[name],), {"y": TABLE[name]})
        assert target.observations["y"].tolist() == COUNT.tolist()


def test_arrays_of_xarray_are_taken_as_they_stand():
    array = xarray.DataArray(REAL, dims="t", coords={"t": [2, 0, 1]})
    target = Target(reals, (array,), {"y": array})
    assert target.observations["y"].tolist() == target.args[0].tolist() == REAL.tolist()
    for value in (TABLE, array.to_dataset(name="a")):
        with pytest.raises(errors.DtypeError, match="its columns, each by itself"):
            Target(reals, (value,), {"y": REAL})


def test_the_remedies_work():
    """What the messages say to do, done."""
    for name in ("real with NaN", "real with NA"):
        column = TABLE[name]
        seen = Masked(column.fillna(0).to_numpy(float), column.notna().to_numpy())
        expected = Target(reals, (np.zeros(2),), {"y": REAL[[0, 2]]}).log_density({})
        found = Target(reals, (np.zeros(3),), {"y": seen}).log_density({})
        assert float(found) == pytest.approx(float(expected), rel=1e-12)
    x = TABLE["dates"]
    days = Target(reals, ((x - x.iloc[0]) / np.timedelta64(1, "D"),), {"y": REAL}).args[0]
    assert days.tolist() == [0.0, 2.0, 3.0]
    codes = Target(reals, (TABLE["category"].cat.codes,), {"y": REAL}).args[0]
    assert codes.tolist() == [0, 1, 0]
    names = Target(reals, (pandas.factorize(TABLE["text"])[0],), {"y": REAL}).args[0]
    assert names.tolist() == [0, 1, 2]


LABELS = {"dims": {"y": ("who",)}, "coords": {"who": ["a", "b", "c"]}}


def test_labels_in_another_order_are_told_and_not_moved():
    inorder = pandas.Series(REAL, index=["a", "b", "c"])
    Target(reals, (REAL,), {"y": inorder}, **LABELS)
    Target(reals, (REAL,), {"y": pandas.Series(REAL, index=[7, 8, 9])}, **LABELS)  # of other things
    swapped = inorder.loc[["b", "a", "c"]]
    array = xarray.DataArray(swapped.to_numpy(), dims="who", coords={"who": ["b", "a", "c"]})
    for value in (swapped, array):
        with pytest.raises(errors.InvalidArgument, match="in another order") as found:
            Target(reals, (REAL,), {"y": value}, **LABELS)
        assert "'b' at [0]" in str(found.value) and "'a' there" in str(found.value)
    table = gen(lambda: sample("y", dist.Normal(0.0, 1.0).expand([2, 2])))
    square = xarray.DataArray(np.eye(2), dims=("b", "a"))
    with pytest.raises(errors.InvalidArgument, match="in another order than its dims"):
        Target(table, (), {"y": square}, dims={"y": ("a", "b")})
