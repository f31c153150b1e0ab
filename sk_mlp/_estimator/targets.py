"""From `y` to the target and back, in NumPy arrays."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from sk_mlp._training.weights import Scaled

_NUMBERS = (bool, int, float, np.bool_, np.integer, np.floating)
_LARGE = 2**53  # above this, float64 does not represent every integer


class Codec(Protocol):
    """Maps `y` to targets, and describes `y` on a fitted estimator."""

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the network."""

    def encode(self, y: Any, dtype: np.dtype) -> np.ndarray:
        """Return the target `(n, n_outputs)`, or class indices `(n, 1)`, of a `y` that was read."""

    def strata(self, target: np.ndarray) -> np.ndarray | None:
        """Return the classes `(n,)` by which held-out rows are stratified; None if they are not stratified."""

    def attributes(self) -> dict[str, Any]:
        """Return the fitted attributes that describe `y`."""


@dataclass(frozen=True)
class ValueCodec:
    """Codec of regression: the target is the values themselves."""

    n_outputs: int

    def encode(self, y: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Return values `(n, n_outputs)`. Raises ValueError for another number of outputs."""
        if y.shape[1] != self.n_outputs:
            raise ValueError(f"y must have {self.n_outputs} output(s), as in the first fit, got {y.shape[1]}")
        return y.astype(dtype, copy=False)

    def strata(self, _target: np.ndarray) -> None:
        """Return None: held-out rows are not stratified."""

    def attributes(self) -> dict[str, Any]:
        """Return the fitted attributes that describe `y`."""
        return {"n_outputs_": self.n_outputs}


@dataclass(frozen=True)
class LabelCodec:
    """Codec of class labels.

    `kind` is "binary" (also for a single class), "multiclass" or "multilabel". Multilabel predictions have the same
    `container` as the labels in `fit`: "dense", or the CSR "array" or "matrix".
    """

    kind: str
    classes: np.ndarray
    container: str = "dense"

    @classmethod
    def of(cls, y: Any, classes: np.ndarray | None = None) -> LabelCodec:
        """Return the codec for the labels in `y`, or for `classes` if they are given."""
        if _is_indicator(y):
            labels = np.arange(y.shape[1])
            if classes is not None and not np.array_equal(classes, labels):
                raise ValueError(f"classes must be {labels} for an indicator of {len(labels)} labels, got {classes}")
            container = "matrix" if sp.isspmatrix(y) else "array" if sp.issparse(y) else "dense"
            return cls("multilabel", labels, container)
        classes = np.unique(y) if classes is None else classes
        return cls("multiclass" if len(classes) > 2 else "binary", classes)

    @classmethod
    def of_attributes(cls, classes: np.ndarray, out_activation: str, n_outputs: int) -> LabelCodec:
        """Return the codec that a classifier's public attributes describe.

        Raises ValueError if the attributes contradict each other.
        """
        of_sigmoids = "binary" if n_outputs == 1 else "multilabel"
        kind = "multiclass" if out_activation == "softmax" else of_sigmoids
        codec = cls(kind, classes)
        if classes.tolist() != np.unique(classes).tolist():
            raise ValueError(f"classes_ must be different labels in ascending order, got {classes}")
        if out_activation not in ("softmax", "logistic") or codec.n_outputs != n_outputs or codec.has_too_many_classes:
            raise ValueError(
                f"classes_, out_activation_ and n_outputs_ must belong together, got {len(classes)} classes, "
                f"{out_activation!r} and {n_outputs} output(s)"
            )
        return codec

    def strata(self, target: np.ndarray) -> np.ndarray | None:
        """Return the classes by which held-out rows are stratified; only for two classes, as in scikit-learn."""
        # One-dimensional: scikit-learn would make a string of each row of a matrix.
        return target[:, 0] if self.kind == "binary" else None

    def attributes(self) -> dict[str, Any]:
        """Return the fitted attributes that describe `y`."""
        plain = {"kind": self.kind, "classes": self.classes, "container": self.container}
        return {"classes_": self.classes, "n_outputs_": self.n_outputs, "_labels": plain}

    @property
    def has_too_many_classes(self) -> bool:
        """Whether one output would have to distinguish more than two classes."""
        return self.kind == "binary" and len(self.classes) > 2

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the network."""
        return 1 if self.kind == "binary" else len(self.classes)

    def encode(self, y: Any, dtype: np.dtype) -> np.ndarray:
        """Return class indices `(n, 1)` (multiclass), otherwise zeros and ones `(n, n_outputs)` of `dtype`.

        Raises ValueError for labels not among `classes`.
        """
        if self.kind == "multilabel" or _is_indicator(y):
            return self._encode_indicator(y, dtype)
        index, is_known = self._index_of(y)
        if not is_known.all():
            raise ValueError(
                f"y must hold labels in classes_ only, got {np.unique(y[~is_known])}; classes_ is {self.classes}"
            )
        if self.kind == "binary":
            return index.astype(dtype)[:, None]
        return index.astype(np.int64)[:, None]

    def decode(self, choice: np.ndarray) -> Any:
        """Return labels `(n,)`, or an indicator `(n, n_labels)`, for targets `(n, n_outputs)` of `encode`."""
        if self.kind == "multilabel":
            return {"dense": np.asarray, "array": sp.csr_array, "matrix": sp.csr_matrix}[self.container](choice)
        # A single class is always predicted.
        return self.classes[np.minimum(choice[:, 0], len(self.classes) - 1)]

    def require_same(self, y: Any, classes: np.ndarray | None, *, all_present: bool) -> None:
        """Raise ValueError if later labels do not fit: `classes` differs, or `y` lacks a class although `all_present`.

        Unknown labels in `y` are found here if `all_present`, otherwise by `encode`.
        """
        if classes is not None and classes.tolist() != self.classes.tolist():  # lists of Python's exact numbers
            raise ValueError(f"classes must stay the same in all calls of partial_fit, {self.classes}, got {classes}")
        if all_present and self.kind != "multilabel" and not _is_indicator(y) and not self._are_all_in(y):
            raise ValueError(
                f"y must have the same classes as in the previous fit for warm_start, {self.classes}, "
                f"got {np.unique(y)}"
            )

    def _are_all_in(self, y: np.ndarray) -> bool:
        """Whether `y` contains all classes and no other labels."""
        index, is_known = self._index_of(y)
        return bool(is_known.all()) and len(np.unique(index)) == len(self.classes)

    def _index_of(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the class index of each label, `(n,)`, and whether the label is among the classes, `(n,)`.

        Numbers of different dtypes are compared by Python: NumPy would cast them to float64, in which some integers
        from 2**53 on are equal.
        """
        if self.classes.dtype.kind == y.dtype.kind:
            index = np.minimum(np.searchsorted(self.classes, y), len(self.classes) - 1)
            return index, self.classes[index] == y
        values, inverse = np.unique(y, return_inverse=True)
        places = {label: i for i, label in enumerate(self.classes.tolist())}
        index = np.array([places.get(label, -1) for label in values.tolist()])[inverse]
        return index, index >= 0

    def _encode_indicator(self, y: Any, dtype: np.dtype) -> np.ndarray:
        """Return a dense indicator of `dtype`."""
        if self.kind != "multilabel" or not _is_indicator(y) or y.shape[1] != len(self.classes):
            raise ValueError(
                f"y must be {_describe(self.kind, len(self.classes))}, as in the first fit, got shape {np.shape(y)}"
            )
        indicator = y.toarray() if sp.issparse(y) else np.asarray(y)
        if not np.isin(indicator, (0, 1)).all():
            raise ValueError(f"y must be an indicator of zeros and ones, got values {np.unique(indicator)[:10]}")
        return indicator.astype(dtype)


def _describe(kind: str, n_classes: int) -> str:
    """Return a text that describes the `y` of a codec."""
    if kind == "multilabel":
        return f"an indicator matrix of {n_classes} labels"
    return f"single labels out of {n_classes} classes"


def _is_indicator(y: Any) -> bool:
    """Whether `y` is a multilabel indicator matrix."""
    return y.ndim == 2


def class_weights(
    class_weight: Any, codec: LabelCodec, target: np.ndarray, sample_weight: np.ndarray | None
) -> list[np.ndarray]:
    """Return class weights, one array for single labels, in the order of `codec.classes`.

    For an indicator, return one array for each column: the weights of absence and presence. "balanced" weights are
    inversely proportional to the weight of each class, as in scikit-learn; a class without weight gets 0.
    """
    if codec.kind != "multilabel":
        if isinstance(class_weight, list):
            raise ValueError(f"class_weight must be a dict or 'balanced' for single labels, got {class_weight!r}")
        return [_class_weight(class_weight, codec.classes, target[:, 0].astype(int), sample_weight)]
    each = class_weight if isinstance(class_weight, list) else [class_weight] * target.shape[1]
    if len(each) != target.shape[1]:
        raise ValueError(f"class_weight must hold one dict for each of {target.shape[1]} labels, got {len(each)}")
    if not all(isinstance(own, dict) or (isinstance(own, str) and own == "balanced") for own in each):
        raise ValueError(f"class_weight must hold a dict or 'balanced' for each label, got {class_weight!r}")
    columns = target.T.astype(int)
    return [_class_weight(own, np.arange(2), y, sample_weight) for own, y in zip(each, columns, strict=True)]


def _class_weight(class_weight: Any, classes: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """Return weights `(n_classes,)` for class indices `y`."""
    if class_weight == "balanced":
        shares = None if weight is None else Scaled.of(weight).values
        counts = np.bincount(y, shares, minlength=len(classes)).astype(float)
        return np.divide(counts.sum(), np.count_nonzero(counts) * counts, out=np.zeros_like(counts), where=counts > 0)
    labels = classes.tolist()  # Python compares its numbers exactly
    unknown = [label for label in class_weight if label not in labels]
    if unknown and any(label not in class_weight for label in labels):
        # As in scikit-learn: a fold of a search may lack a class, but a misspelled class leaves another without weight.
        raise ValueError(f"class_weight must name classes in {classes} only, or all of them, got {unknown}")
    weights = [class_weight.get(label, 1.0) for label in labels]
    if not all(map(_is_weight, weights)):
        raise ValueError(f"class_weight must be non-negative numbers, got {class_weight!r}")
    return np.array(weights, dtype=float)


def _is_weight(value: Any) -> bool:
    """Whether a value is a finite number that is not negative."""
    return isinstance(value, Real) and bool(0 <= value <= float(np.finfo(float).max))  # type: ignore[operator]


def weigh_classes(weights: list[np.ndarray], target: np.ndarray, sample_weight: np.ndarray | None) -> Scaled:
    """Return the sample weights times the weights of the classes, `(n,)`; for several labels, times their product."""
    product = Scaled.of(np.ones(len(target)) if sample_weight is None else sample_weight)
    for of_classes, y in zip(weights, target.T.astype(int), strict=True):
        product = product.times(of_classes[y])
    return product


def read_classes(classes: Any) -> np.ndarray:
    """Return the given classes, sorted. Raises ValueError unless they are a non-empty flat list."""
    if np.ndim(classes) != 1 or len(classes) == 0:
        raise ValueError(f"classes must be a flat list of at least one label, got {classes!r}")
    # NumPy would cast a list with several types to strings or floats.
    labels = np.asarray(classes, dtype=object) if isinstance(classes, list | tuple) else labels_for_numpy(classes)
    return np.unique(_numbers_or_words(np.asarray(labels)))


def labels_for_numpy(y: Any) -> Any:
    """Return labels in NumPy dtypes that scikit-learn does not cast.

    scikit-learn would cast pandas' integers to float64, in which some integers from 2**53 on are equal. Raises
    ValueError for the missing values of pandas and NumPy.
    """
    if hasattr(y, "iloc") and np.ndim(y) == 2:
        columns = [np.asarray(labels_for_numpy(y.iloc[:, j])) for j in range(y.shape[1])]
        kinds = {column.dtype.kind for column in columns}
        if kinds & {"m", "M"}:  # of dates in nanoseconds NumPy would make integers
            return next(_numbers_or_words(column) for column in columns if column.dtype.kind in "mM")
        return np.column_stack([c if kinds <= set("biuf") else c.astype(object) for c in columns])
    if isinstance(y, list | tuple) and any(map(_is_large, y)):
        return np.array(y, dtype=object)
    dtype = getattr(y, "dtype", None)
    if isinstance(dtype, np.dtypes.StringDType):
        labels = y.astype(object)
        is_missing = any(not isinstance(label, str) for label in labels.flat)
    elif isinstance(dtype, np.dtype) and dtype.kind == "O":
        labels = y
        is_missing = any(label is None or type(label).__name__ == "NAType" for label in np.asarray(y).flat)
    elif dtype is None or isinstance(dtype, np.dtype) or not hasattr(y, "isna"):
        return y
    else:
        is_missing = bool(np.any(y.isna()))
        labels = y if is_missing else y.to_numpy(dtype=getattr(dtype, "numpy_dtype", object))
    if is_missing:
        raise ValueError("Input y contains NaN: labels must not be missing, got a missing one")
    return labels


def _is_large(label: Any) -> bool:
    """Whether a label is an integer that float64 may not represent exactly."""
    return isinstance(label, int | np.integer) and abs(int(label)) > _LARGE


def read_labels(y: Any) -> Any:
    """Return validated labels `(n,)` or an indicator `(n, n_labels)`, dense or sparse.

    Raises ValueError for continuous values, mixed types, and several multiclass outputs.
    """
    if sp.issparse(y) and y.shape[1] == 1:
        y = y.toarray()
    if not sp.issparse(y):
        y = _numbers_or_words(column_or_1d(y, warn=True) if _is_column(y) else np.asarray(y))
        if y.ndim == 1 and y.dtype.kind in "biuSU":
            return y  # integers, bools and strings are always labels
    check_classification_targets(y)
    if type_of_target(y) == "multiclass-multioutput":
        raise ValueError(
            "y must be one column of labels or a multilabel indicator of zeros and ones, got several multiclass "
            "outputs (multiclass-multioutput); sklearn.multioutput.MultiOutputClassifier fits one classifier an output"
        )
    return y


def read_values(y: Any, dtype: np.dtype, loss: Any) -> np.ndarray:
    """Return regression targets `(n, n_outputs)` of `dtype`.

    Raises ValueError for values that are not numbers, too large for `dtype`, or outside the range of `loss`.
    """
    y = y.toarray() if sp.issparse(y) else np.asarray(y)
    if y.dtype.kind not in "biuf":
        raise ValueError(f"y must hold real numbers, got dtype {y.dtype}")
    if _is_column(y):
        y = column_or_1d(y, warn=True)
    with np.errstate(over="ignore"):
        target = y.reshape(len(y), -1).astype(dtype)
    if not np.isfinite(target).all():
        raise ValueError(f"y must be finite in {dtype}, got values up to {np.abs(y).max():g}")
    if loss == "poisson" and target.min() < 0:
        raise ValueError(f"y must be non-negative for loss='poisson', got {target.min():g}")
    if loss == "gamma" and target.min() <= 0:
        raise ValueError(f"y must be positive for loss='gamma', got {target.min():g}")
    return target


def _is_column(y: Any) -> bool:
    """Whether `y` is a matrix of one column."""
    return np.ndim(y) == 2 and np.shape(y)[1] == 1


def _numbers_or_words(labels: np.ndarray) -> np.ndarray:
    """Return labels with a dtype of numbers or strings; arrays of objects, from pandas for example, are converted."""
    if labels.dtype.kind in "biufUSc":
        return labels
    if labels.dtype != object:
        raise ValueError(f"Unknown label type: labels must be numbers or strings, got {labels.dtype}")
    are_strings = [isinstance(label, str) for label in labels.flat]
    if not all(are_strings) and not all(isinstance(label, _NUMBERS) for label in labels.flat):
        kinds = sorted({type(label).__name__ for label in labels.flat})
        rule = "be of one kind, numbers or strings" if any(are_strings) else "be numbers or strings"
        hint = "; sklearn.preprocessing.MultiLabelBinarizer makes an indicator of sets" if "set" in kinds else ""
        raise ValueError(f"Unknown label type: labels must {rule}, got {', '.join(kinds)}{hint}")
    values = [label.item() if isinstance(label, np.generic) else label for label in labels.flat]
    typed = np.array(values).reshape(labels.shape)
    is_inexact = typed.dtype.kind == "f" and any(map(_is_large, labels.flat))
    if typed.dtype == object or is_inexact:
        raise ValueError("Unknown label type: labels must be numbers of 64 bits, got integers that are not")
    return typed
