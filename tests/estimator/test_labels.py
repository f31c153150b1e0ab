"""Labels and features of the types that tables have are read as they are, or refused by name."""

import datetime
import re
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.exceptions import DataConversionWarning

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor

pytestmark = [pytest.mark.usefixtures("unconverged"), pytest.mark.filterwarnings("ignore:X has feature names")]
FAST = {"hidden_layer_sizes": (4,), "max_iter": 3, "random_state": 0}
X = np.random.default_rng(0).normal(size=(120, 4))
TWO = np.arange(120) % 2
LARGE = np.array([2**53, 2**53 + 1])
HUGE = np.array([2**63, 2**64 - 1], np.uint64)


def fitted(y, where, **options):
    return MLPTorchClassifier(**FAST, **options, **where).fit(X, y)


# Labels, and the classes that they are.
READ = {
    "int64 beyond float64": (LARGE[TWO], LARGE),
    "uint64": (HUGE[TWO], HUGE),
    "Int64": (pd.Series(LARGE[TWO], dtype="Int64"), LARGE),
    "UInt64": (pd.Series(HUGE[TWO], dtype="UInt64"), HUGE),
    "Int8": (pd.Series(TWO, dtype="Int8"), np.array([0, 1])),
    "a frame of Int64": (pd.DataFrame({"y": LARGE[TWO]}, dtype="Int64"), LARGE),
    "boolean": (pd.Series(TWO == 1, dtype="boolean"), np.array([False, True])),
    "Float64": (pd.Series(TWO, dtype="Float64"), np.array([0.0, 1.0])),
    "string": (pd.Series(np.array(["a", "b"])[TWO], dtype="string"), np.array(["a", "b"])),
    "str": (pd.Series(np.array(["a", "b"])[TWO]), np.array(["a", "b"])),
    "StringDType": (np.array(["a", "b"])[TWO].astype(np.dtypes.StringDType()), np.array(["a", "b"])),
    "categories": (pd.Series(pd.Categorical(LARGE[TWO])), LARGE),
    "an index": (pd.Index(LARGE[TWO], dtype="Int64"), LARGE),
    "an array of pandas'": (pd.array(LARGE[TWO], dtype="Int64"), LARGE),
    "polars": (pl.Series(LARGE[TWO]), LARGE),
    "polars, unsigned": (pl.Series(HUGE[TWO], dtype=pl.UInt64), HUGE),
    "a list of integers": (LARGE[TWO].tolist(), LARGE),
    "a list of 64 bits": (HUGE[TWO].tolist(), HUGE),
    "a list of unlike integers": ([np.uint64(2**53), np.int64(2**53 + 1)] * 60, LARGE),
    "objects": (LARGE[TWO].astype(object), LARGE),
}


@pytest.mark.parametrize("kind", READ)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
def test_labels_are_read_as_they_are(kind, where):
    y, classes = READ[kind]
    clf = fitted(y, where)
    assert clf.classes_.dtype.kind == classes.dtype.kind
    assert clf.classes_.tolist() == classes.tolist()
    assert set(clf.predict(X).tolist()) <= set(classes.tolist())


def test_a_column_is_still_warned_of(where):
    with pytest.warns(DataConversionWarning):
        fitted(pd.DataFrame({"y": TWO}, dtype="Int64"), where)


@pytest.mark.parametrize(
    ("classes", "y"),
    [
        (LARGE.astype(np.uint64), LARGE),
        (LARGE, LARGE.astype(np.uint64)),
        (LARGE, pd.Series(LARGE, dtype="Int64")),
        (np.array([0.0, 1.0]), np.array([0, 1])),
        (np.array([0, 1]), np.array([0.0, 1.0])),
        (np.array([False, True]), np.array([0, 1])),
        (np.array([0, 1], np.int8), np.array([0, 1], np.uint64)),
        (np.array(["a", "b"]), pd.Series(["a", "b"], dtype="string")),
    ],
)
def test_classes_and_labels_of_different_types(classes, y, where):
    clf = MLPTorchClassifier(**FAST, **where).partial_fit(X[:2], y, classes=classes)
    assert clf.partial_fit(X[:2], y, classes=classes).classes_.tolist() == classes.tolist()


@pytest.mark.parametrize(
    ("classes", "y", "unseen"),
    [
        (np.array([2.0**53, 0.0]), np.array([2**53 + 1, 0]), "9007199254740993"),
        (LARGE[:1].astype(np.uint64), LARGE, "9007199254740993"),
        (np.array([2**64 - 1, 0], np.uint64), np.array([-1, 0]), "-1"),
        (np.array([0, 1]), np.array([0.5, 1.0]), "0.5"),
    ],
)
def test_labels_that_are_not_among_the_classes(classes, y, unseen, where):
    with pytest.raises(
        ValueError, match=rf"in classes_ only, got \[{re.escape(unseen)}|Unknown label type: continuous"
    ):
        MLPTorchClassifier(**FAST, **where).partial_fit(X[:2], y, classes=classes)


REFUSED = [
    ([Decimal(int(v)) for v in TWO], "labels must be numbers or strings, got Decimal"),
    (pd.Series(pd.cut(X[:, 0], 2)), "labels must be numbers or strings, got Interval"),
    (pd.Series(pd.PeriodIndex(["2020", "2021"], freq="Y")[TWO]), "labels must be numbers or strings, got Period"),
    ([datetime.date(2020, 1, 1 + v) for v in TWO], "labels must be numbers or strings, got date"),
    (np.array(["2020-01-01", "2020-01-02"], "M8[D]")[TWO], r"labels must be numbers or strings, got datetime64\[D\]"),
    (pd.Series(pd.to_datetime(["2020", "2021"])[TWO]), r"labels must be numbers or strings, got datetime64\["),
    (
        pd.Series(pd.to_datetime(["2020", "2021"]).tz_localize("UTC")[TWO]),
        "labels must be numbers or strings, got Timestamp",
    ),
    (np.array([1, 2], "m8[s]")[TWO], r"labels must be numbers or strings, got timedelta64\[s\]"),
    ([{1, 2}] * 120, "labels must be numbers or strings, got set; .*MultiLabelBinarizer"),
    ([{"a": 1}] * 120, "labels must be numbers or strings, got dict"),
    (np.array(["a", 1] * 60, dtype=object), "labels must be of one kind, numbers or strings, got int, str"),
    ([2**64, 1] * 60, "labels must be numbers of 64 bits"),
    ([2**63, -1] * 60, "labels must be numbers of 64 bits"),
    (pd.Series(["a", None] * 60, dtype="string"), "Input y contains NaN: labels must not be missing"),
    (pd.Series([pd.NA, "a"] * 60, dtype=object), "Input y contains NaN: labels must not be missing"),
    (np.array([None, 1] * 60, dtype=object), "Input y contains NaN: labels must not be missing"),
    ([np.int64(2**53 + 1), 1.0] * 60, "labels must be numbers of 64 bits"),
    (pd.DataFrame({"a": TWO, "day": pd.date_range("2020", periods=120)}), "labels must be .*numbers or strings, got"),
    (pd.DataFrame({"a": TWO, "day": pd.date_range("2020", periods=120, unit="ns")}), r"got datetime64\[ns\]"),
    (pd.DataFrame({"a": TWO, "gap": pd.to_timedelta(TWO, unit="s")}), r"got timedelta64\["),
    (pd.Series([1, None] * 60, dtype="Int64"), "Input y contains NaN: labels must not be missing"),
    (pd.Series([True, None] * 60, dtype="boolean"), "Input y contains NaN: labels must not be missing"),
    (np.array(["a", np.nan] * 60, np.dtypes.StringDType(na_object=np.nan)), "Input y contains NaN"),
]  # fmt: skip


@pytest.mark.parametrize(("y", "message"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_labels_that_are_none_are_named(y, message, where):
    with pytest.raises(ValueError, match=message):
        fitted(y, where)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([1, "a"], "labels must be of one kind, numbers or strings, got int, str"),
        ([1, pd.NA], "labels must be numbers or strings, got NAType, int"),
        ([np.uint64(2**63), np.int64(-1)], "labels must be numbers of 64 bits"),
    ],
)
def test_listed_classes_that_are_none(classes, message, where):
    with pytest.raises(ValueError, match=message):
        MLPTorchClassifier(**FAST, **where).partial_fit(X, TWO, classes=classes)


def test_listed_classes_keep_their_types(where):
    mixed = [np.uint64(2**53), np.int64(2**53 + 1)]
    assert (
        MLPTorchClassifier(**FAST, **where).partial_fit(X, LARGE[TWO], classes=mixed).classes_.tolist()
        == LARGE.tolist()
    )


@pytest.mark.parametrize("value", [10**400, -1.0, np.inf, "a"])
def test_class_weights_that_are_none(value, where):
    with pytest.raises(ValueError, match="class_weight must be non-negative numbers"):
        MLPTorchClassifier(**FAST, **where, class_weight={0: value, 1: 1.0}).fit(X, TWO)


def test_text_as_weights_is_named(where):
    with pytest.raises(ValueError, match=r"^sample_weight must hold numbers, got text \('a'\)"):
        MLPTorchClassifier(**FAST, **where).fit(X, TWO, sample_weight=np.array(["a"] * 120, dtype=object))


def test_a_warm_start_with_other_classes_says_so(where):
    clf = fitted(TWO, where, warm_start=True)
    for y in (TWO + 5, TWO + 1, np.zeros(120, int), np.arange(120) % 3):
        with pytest.raises(ValueError, match=r"same classes as in the previous fit for warm_start, \[0 1\], got \["):
            clf.fit(X, y)


DAYS = pd.date_range("2020-01-01", periods=120)
DATES = [
    (DAYS.to_numpy()[:, None], r"got datetime64\["),
    (DAYS.to_numpy().astype("M8[D]")[:, None], r"got datetime64\[D\]"),
    ((DAYS - DAYS[0]).to_numpy()[:, None], r"got timedelta64\["),
    (pd.DataFrame({"size": X[:, 0], "day": DAYS}), r"got datetime64\[.*\] in column 'day'"),
    (pd.DataFrame({"size": X[:, 0], "day": DAYS.tz_localize("UTC")}), r"got datetime64\[.*UTC\] in column 'day'"),
    (pd.DataFrame({"lag": DAYS - DAYS[0]}), r"got timedelta64\[.*\] in column 'lag'"),
    (pd.DataFrame({"size": X[:, 0], "month": DAYS.to_period("M")}), "got Period in column 'month', turn it into"),
    (pl.DataFrame({"size": X[:, 0], "day": DAYS.to_numpy()}), "got Datetime.* in column 'day'"),
    (pl.DataFrame({"day": DAYS.to_numpy()}).with_columns(pl.col("day").dt.date()), "got Date in column 'day'"),
    ([[np.datetime64("2020-01-01")]] * 120, r"got datetime64\[D\]"),
    (np.array([[np.timedelta64(1, "s"), 2.0]] * 120, dtype=object), r"got timedelta64\[s\]"),
    (np.array([[datetime.date(2020, 1, 1), 2.0]] * 120, dtype=object), "got date in column 0, turn it into"),
    (
        pd.DataFrame({"size": X[:, 0], "lag": np.array([np.timedelta64(3, "s")] * 120, dtype=object)}, dtype=object),
        r"got (timedelta64\[s\]|Timedelta) in column 'lag'",
    ),
    (pl.DataFrame({"day": pl.Series([np.datetime64("2020-01-01")] * 120, dtype=pl.Object)}), "got .* in column 'day'"),
]


@pytest.mark.parametrize(("table", "message"), DATES, ids=[str(i) for i in range(len(DATES))])
@pytest.mark.parametrize("cls", [MLPTorchClassifier, MLPTorchRegressor])
def test_dates_are_no_numbers(cls, table, message, where):
    estimator = cls(**FAST, **where)
    with pytest.raises((ValueError, TypeError), match=f"^X must hold numbers, {message}"):
        estimator.fit(table, TWO)
    if cls is MLPTorchClassifier:
        with pytest.raises((ValueError, TypeError), match=f"^X must hold numbers, {message}"):
            estimator.partial_fit(table, TWO, classes=[0, 1])
    numbers = np.ones((120, np.shape(table)[1]))
    with pytest.raises((ValueError, TypeError), match=f"^X must hold numbers, {message}"):
        estimator.fit(numbers, TWO).predict(table)
    with pytest.raises(ValueError, match=r"^in X_val, .*: X must hold numbers"):
        estimator.fit(numbers, TWO, X_val=table, y_val=TWO)


def test_dates_are_no_weights(where):
    with pytest.raises(ValueError, match=r"sample_weight must hold numbers, got timedelta64\[s\]"):
        MLPTorchClassifier(**FAST, **where).fit(X, TWO, sample_weight=np.ones(120, "m8[s]"))


TEXTS = [
    (
        pd.DataFrame({"size": X[:, 0], "city": ["Berlin"] * 120}),
        r"got text in column 'city' \('Berlin'\).*OneHotEncoder",
    ),
    (pd.DataFrame({"city": pd.Categorical(["Rome"] * 120)}), r"got text in column 'city' \('Rome'\)"),
    (pd.DataFrame({"city": pd.array(["Rome"] * 120, dtype="string")}), r"got text in column 'city' \('Rome'\)"),
    (pl.DataFrame({"size": X[:, 0], "city": ["Rome"] * 120}), r"got text in column 'city' \('Rome'\)"),
    (np.array([[1, "Rome"]] * 120, dtype=object), r"got text in column 1 \('Rome'\)"),
    (np.array([["1", "Rome"]] * 120), r"got text in column 1 \('Rome'\)"),
    ([[1.0, "Rome"]] * 120, r"got text in column 1 \('Rome'\)"),
    (pd.DataFrame({"size": X[:, 0], "kind": [None, "a"] * 60}), r"got text in column 'kind' \('a'\)"),
    (
        pd.DataFrame({"age": np.array([1, None, 3] * 40, dtype=object), "city": ["Rome"] * 120}),
        r"got text in column 'city' \('Rome'\)",
    ),
    (pd.DataFrame({"age": ["1", "2", "?"] * 40}), r"got text in column 'age' \('\?'\): could not convert"),
    (pd.DataFrame({"age": pd.array([1, pd.NA] * 60, dtype=object)}), "got a missing value in column 'age'"),
]


@pytest.mark.parametrize(("table", "message"), TEXTS, ids=[str(i) for i in range(len(TEXTS))])
def test_text_is_named_with_its_column(table, message, where):
    estimator = MLPTorchClassifier(**FAST, **where)
    with pytest.raises((ValueError, TypeError), match=f"^X must hold numbers, {message}"):
        estimator.fit(table, TWO)
    with pytest.raises((ValueError, TypeError), match=r"X must hold numbers, got (text|a missing value) in"):
        estimator.fit(np.ones((120, np.shape(table)[1])), TWO).predict(table)


def test_durations_are_no_target_values(where):
    with pytest.raises(ValueError, match=r"^y must hold numbers, got timedelta64\[s\]"):
        MLPTorchRegressor(**FAST, **where).fit(X, np.array([np.timedelta64(1, "s")] * 120, dtype=object))


def test_text_as_target_values_is_named(where):
    with pytest.raises(ValueError, match=r"^y must hold numbers, got text \('a'\)"):
        MLPTorchRegressor(**FAST, **where).fit(X, np.array(["a", "b"] * 60, dtype=object))


def test_objects_that_are_numbers_are_numbers(where):
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataConversionWarning)
        ours = fitted(TWO, where)
        for table in (X.astype(object), X.tolist(), pd.DataFrame(X, dtype=object)):
            again = MLPTorchClassifier(**FAST, **where).fit(table, TWO)
            np.testing.assert_array_equal(again.coefs_[0], ours.coefs_[0])
