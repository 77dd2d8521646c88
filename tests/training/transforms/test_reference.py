"""The transforms against scikit-learn's and the standard library's, which know nothing of them."""

from __future__ import annotations

import datetime
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, MinMaxScaler, OneHotEncoder, StandardScaler

from crossfade.training.transforms import fitting, plan
from crossfade.training.transforms.errors import InvalidSpec
from crossfade.training.transforms.estimator import TableTransformer
from crossfade.training.transforms.evaluate import transform
from crossfade.training.transforms.fitting import Options
from crossfade.training.transforms.spec import PARTS, TargetEncoding, make
from crossfade.training.transforms.table import Table
from crossfade.training.transforms.torch_features import Features, tensors

RNG = np.random.default_rng(0)
ROWS = 400
TABLE = Table.of(
    {
        "x": [None if i % 9 == 0 else v for i, v in enumerate(RNG.normal(3, 2, ROWS).tolist())],
        "skewed": np.exp(RNG.normal(3, 2, ROWS)).tolist(),
        "colour": [("red", "green", "blue", "")[i] for i in RNG.integers(0, 4, ROWS)],
        "city": [f"city {i}" for i in RNG.integers(0, 40, ROWS)],
        "constant": ["same"] * ROWS,
    }
)
TARGET = RNG.normal(size=ROWS)


def one(column: str, kind: str, **transformation: object) -> np.ndarray:
    spec = make(
        columns=[{"name": column, "kind": kind}],
        transforms=[{"column": column, **transformation}],
    )
    return transform(spec, TABLE)[0]


def test_scales() -> None:
    values = TABLE.numbers("x")[:, None]
    wanted = StandardScaler().fit(values)
    found = one("x", "number", transform="standardize", mean=wanted.mean_[0], std=wanted.scale_[0])
    np.testing.assert_allclose(found, wanted.transform(values), rtol=1e-6)
    ends = MinMaxScaler().fit(values)
    low, high = ends.data_min_[0], ends.data_max_[0]
    found = one("x", "number", transform="min_max", minimum=low, maximum=high)
    np.testing.assert_allclose(found, ends.transform(values), rtol=1e-6, atol=1e-7)
    filled = one("x", "number", transform="identity", missing=7.5)[:, 0]
    assert (filled[np.isnan(values[:, 0])] == 7.5).all()


def test_one_hot() -> None:
    words = TABLE.texts("colour").reshape(-1, 1)
    wanted = OneHotEncoder(categories=[["blue", "red"]], handle_unknown="ignore")
    found = one("colour", "text", transform="one_hot", categories=["blue", "red"])
    assert (found == wanted.fit_transform(words).toarray()).all()


def test_buckets() -> None:
    values = TABLE.numbers("skewed")[:, None]
    bins = KBinsDiscretizer(4, encode="ordinal", quantile_method="averaged_inverted_cdf")
    wanted = bins.fit_transform(values)[:, 0]
    spec = make(
        columns=[{"name": "skewed", "kind": "number"}],
        derived=[
            {
                "derive": "bucket",
                "name": "b",
                "column": "skewed",
                "boundaries": np.nextafter(bins.bin_edges_[0][1:-1], -np.inf).tolist(),
            }
        ],
        transforms=[{"transform": "ordinal", "column": "b", "categories": ["0", "1", "2", "3"]}],
    )
    assert (transform(spec, TABLE)[0][:, 0] == wanted).all()


@given(
    st.datetimes(
        datetime.datetime(1, 1, 2), datetime.datetime(9999, 12, 30), timezones=st.timezones()
    ),
    st.sampled_from(["T", " "]),
)
@settings(max_examples=300, deadline=None)
def test_moments(moment: datetime.datetime, between: str) -> None:
    offset = moment.utcoffset()
    assert offset is not None
    # Zones had seconds once, which ISO 8601 has not.
    zone = datetime.timezone(datetime.timedelta(minutes=round(offset.total_seconds() / 60)))
    # Seconds since 1970 in 64 bits round microseconds from 2255 on, at times to the next second.
    moment = moment.replace(tzinfo=zone, microsecond=moment.microsecond // 1000 * 1000)
    spec = make(
        columns=[{"name": "t", "kind": "timestamp"}],
        transforms=[{"transform": "timestamp", "column": "t", "parts": PARTS}],
    )
    found = transform(spec, Table.of({"t": [moment.isoformat(between)]}))[0][0]
    utc = moment.astimezone(datetime.UTC)
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    wanted = [
        *(utc.year, utc.month, utc.day, utc.weekday(), utc.hour, utc.minute, utc.second),
        (utc - epoch) / datetime.timedelta(days=1),
    ]
    np.testing.assert_array_equal(found, np.array(wanted, np.float32))


@given(st.text(alphabet="0123456789-", min_size=8, max_size=10))
@settings(max_examples=300, deadline=None)
def test_days_that_there_are_not(text: str) -> None:
    try:
        known = len(text) == 10 and text.count("-") == 2
        known = known and bool(datetime.date.fromisoformat(text))
    except ValueError:
        known = False
    spec = make(
        columns=[{"name": "t", "kind": "timestamp"}],
        transforms=[{"transform": "missing_flag", "column": "t"}],
    )
    assert transform(spec, Table.of({"t": [text]}))[0][0, 0] == (0 if known else 1)


def test_a_category_is_encoded_by_what_other_rows_say() -> None:
    """A column that names each row says nothing out of fold, and all of it in fold."""
    names = Table.of({"city": [f"c{i // 2}" for i in range(ROWS)]})
    target = RNG.normal(size=ROWS // 2).repeat(2)
    alone = target.copy()
    alone[::2] = 1000.0
    columns = plan.of_kinds({"city": "categorical"}, names)
    options = Options(min_count=1, max_categories=ROWS, smoothing=1.0)
    spec, dense, _ = fitting.fit_transform(names, columns, alone, options)
    (encoding, _) = spec.transforms
    assert isinstance(encoding, TargetEncoding)
    mean = alone.mean()
    np.testing.assert_allclose(encoding.values[0][0], (alone[0] + alone[1] + mean) / 3, rtol=1e-12)
    in_fold = transform(spec, names)[0][:, 0]
    assert np.corrcoef(in_fold, target)[0, 1] > np.corrcoef(dense[:, 0], alone)[0, 1]
    # Its own value is not in a row's feature: 1000 in one of two rows is seen by the other only.
    assert dense[1::2, 0].mean() > dense[::2, 0].mean()


@pytest.mark.parametrize("style", ["trees", "linear", "network"])
def test_fitted_features_are_as_promised(style: fitting.Style) -> None:
    options = Options(style, crosses=[("colour", "city"), ("x", "colour")])
    columns = plan.infer(TABLE)
    spec, dense, ids = fitting.fit_transform(TABLE, columns, TARGET, options)
    assert "constant" not in [column.name for column in spec.columns]
    assert dense.shape == (ROWS, len(spec.dense_names))
    assert ids.shape == (ROWS, len(spec.id_sizes))
    assert (ids.max(axis=0, initial=0) < np.array(spec.id_sizes)).all()
    if style != "trees":
        assert np.isfinite(dense).all()
    joined = Features(spec)(*tensors(spec, TABLE))
    assert joined.shape == (ROWS, Features(spec).width)
    assert joined.dtype == torch.float32


def test_nothing_to_learn_from_is_an_error() -> None:
    with pytest.raises(InvalidSpec, match="no column has values that differ"):
        fitting.fit(TABLE, plan.of_kinds({"constant": "categorical"}, TABLE))


def test_in_a_pipeline_of_scikit_learn() -> None:
    signal = np.nan_to_num(TABLE.numbers("x"), nan=3.0)
    columns = {name: TABLE.columns[name] for name in TABLE.columns}
    pipeline = make_pipeline(TableTransformer(options=Options("linear")), Ridge())
    fitted = clone(pipeline).fit(columns, signal)
    assert fitted.score(columns, signal) > 0.95
    names = fitted[0].get_feature_names_out().tolist()
    assert "x missing" in names
    frame = Frame(columns)
    assert cross_val_score(pipeline, frame, signal, cv=3).mean() > 0.9
    spec = fitted[0].spec_
    same = TableTransformer(spec=spec).fit(columns).transform(columns)
    np.testing.assert_array_equal(same, fitted[0].transform(columns))


class Frame:
    """What cross-validation needs of a data frame: its rows by position, columns by name."""

    def __init__(self, columns: dict[str, np.ndarray]) -> None:
        self._columns = columns
        self.shape = (len(next(iter(columns.values()))), len(columns))
        self.iloc = self

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self):
        return iter(self._columns)

    def __getitem__(self, key):
        if isinstance(key, str):
            return self._columns[key]
        return Frame({name: column[key] for name, column in self._columns.items()})

    def take(self, rows, axis=0):
        return self[rows]


def test_logarithms_of_skewed_columns() -> None:
    spec = fitting.fit(TABLE, plan.of_kinds({"skewed": "numeric"}, TABLE), None, Options("linear"))
    (found,) = spec.transforms
    assert found.transform == "log"
    values = transform(spec, TABLE)[0][:, 0]
    wanted = np.log1p(TABLE.numbers("skewed"))
    np.testing.assert_allclose(
        values, (wanted - wanted.mean()) / wanted.std(), rtol=1e-5, atol=1e-6
    )
    assert math.isclose(values.std(), 1.0, rel_tol=1e-4)
