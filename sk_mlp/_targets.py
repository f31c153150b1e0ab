"""`y` to target and back: NumPy in, NumPy out."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d


@dataclass(frozen=True)
class LabelCodec:
    """Class labels and what the network sees of them.

    `kind` is "binary" (one class counts as such), "multiclass" or "multilabel". `sparse` multilabel predictions come
    back as CSR, as the labels came.
    """

    kind: str
    classes: np.ndarray
    sparse: bool = False

    @classmethod
    def of(cls, y: Any, classes: np.ndarray | None = None) -> LabelCodec:
        """Return the codec for the labels in `y`, or for all of `classes` if they are listed."""
        if _is_indicator(y):
            labels = np.arange(y.shape[1])
            if classes is not None and not np.array_equal(classes, labels):
                raise ValueError(f"classes must be {labels} for an indicator of {len(labels)} labels, got {classes}")
            return cls("multilabel", labels, sp.issparse(y))
        classes = np.unique(y) if classes is None else classes
        return cls("multiclass" if len(classes) > 2 else "binary", classes)

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the network."""
        return 1 if self.kind == "binary" else len(self.classes)

    def encode(self, y: Any, dtype: np.dtype) -> np.ndarray:
        """Return class indices `(n, 1)` (multiclass), else zeros and ones `(n, n_outputs)` of `dtype`.

        Raises ValueError for labels not among `classes`.
        """
        if self.kind == "multilabel" or _is_indicator(y):
            return self._encode_indicator(y, dtype)
        index = np.minimum(np.searchsorted(self.classes, y), len(self.classes) - 1)
        unseen = self.classes[index] != y
        if unseen.any():
            raise ValueError(
                f"y must hold labels in classes_ only, got {np.unique(y[unseen])}; classes_ is {self.classes}"
            )
        if self.kind == "binary":
            return index.astype(dtype)[:, None]
        return index.astype(np.int64)[:, None]

    def decode(self, choice: np.ndarray) -> Any:
        """Return labels `(n,)`, or the indicator `(n, n_labels)`, for what `encode` would give, `(n, n_outputs)`."""
        if self.kind == "multilabel":
            return sp.csr_array(choice) if self.sparse else choice
        # A single class is predicted whatever the network says.
        return self.classes[np.minimum(choice[:, 0], len(self.classes) - 1)]

    def require_same(self, y: Any, classes: np.ndarray | None, *, all_present: bool) -> None:
        """Raise ValueError if later labels do not fit: other classes listed, or not `all_present` in `y`.

        Unseen labels are for `encode` to find.
        """
        if classes is not None and not np.array_equal(classes, self.classes):
            raise ValueError(f"classes must stay the same in all calls of partial_fit, {self.classes}, got {classes}")
        if all_present and not _is_indicator(y) and len(np.unique(y)) < len(self.classes):
            raise ValueError(
                f"y must have the same classes as in the previous fit for warm_start, {self.classes}, "
                f"got {np.unique(y)}"
            )

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
    """Say what `y` a codec takes."""
    if kind == "multilabel":
        return f"an indicator matrix of {n_classes} labels"
    return f"single labels out of {n_classes} classes"


def _is_indicator(y: Any) -> bool:
    """Tell a multilabel indicator matrix."""
    return y.ndim == 2


def class_weights(
    class_weight: Any, codec: LabelCodec, target: np.ndarray, sample_weight: np.ndarray | None
) -> list[np.ndarray]:
    """Return the weight of each class, in the order of `codec.classes`; for labels, of their absence and presence.

    One array for single labels, one for each column of an indicator. "balanced" weights are inverse to the classes'
    share of the weight, as scikit-learn's are; a class without weight gets 0.
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
        counts = np.bincount(y, weight, minlength=len(classes)).astype(float)
        return np.divide(counts.sum(), np.count_nonzero(counts) * counts, out=np.zeros_like(counts), where=counts > 0)
    unknown = [label for label in class_weight if label not in classes]
    if unknown and any(label not in class_weight for label in classes.tolist()):
        # As scikit-learn has it: a search may leave classes out of a fold, a misspelling leaves one without a weight.
        raise ValueError(f"class_weight must name classes in {classes} only, or all of them, got {unknown}")
    weights = [class_weight.get(label, 1.0) for label in classes.tolist()]
    if not all(isinstance(value, Real) and 0 <= float(value) < np.inf for value in weights):
        raise ValueError(f"class_weight must be non-negative numbers, got {class_weight!r}")
    return np.array(weights, dtype=float)


def weigh_classes(weights: list[np.ndarray], target: np.ndarray, sample_weight: np.ndarray | None) -> np.ndarray:
    """Return the rows' weights times those of their classes, `(n,)` float64; over several labels they multiply."""
    columns = zip(weights, target.T.astype(int), strict=True)
    product = np.prod([of_classes[y] for of_classes, y in columns], axis=0)
    return product if sample_weight is None else product * sample_weight


def read_classes(classes: Any) -> np.ndarray:
    """Return listed classes, sorted. Raises ValueError unless they are a non-empty flat list."""
    if np.ndim(classes) != 1 or len(classes) == 0:
        raise ValueError(f"classes must be a flat list of at least one label, got {classes!r}")
    return np.unique(_numbers_or_words(np.asarray(classes)))


def read_labels(y: Any) -> Any:
    """Return validated labels `(n,)` or an indicator `(n, n_labels)`, dense or sparse.

    Raises ValueError for continuous values, mixed types, and several multiclass outputs.
    """
    if sp.issparse(y) and y.shape[1] == 1:
        y = y.toarray()
    if not sp.issparse(y):
        y = _numbers_or_words(column_or_1d(y, warn=True) if _is_column(y) else np.asarray(y))
        if y.ndim == 1 and y.dtype.kind in "biuSU":
            return y  # whole numbers, bools and words are labels whatever their values
    check_classification_targets(y)
    if type_of_target(y) == "multiclass-multioutput":
        raise ValueError(
            "y must be one column of labels or a multilabel indicator of zeros and ones, got several multiclass "
            "outputs (multiclass-multioutput); sklearn.multioutput.MultiOutputClassifier fits one classifier an output"
        )
    return y


def read_values(y: Any, dtype: np.dtype, loss: Any) -> np.ndarray:
    """Return regression targets `(n, n_outputs)` of `dtype`.

    Raises ValueError for what is not a number, too large for `dtype`, or outside the range of `loss`.
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
    """Tell a matrix of one column."""
    return np.ndim(y) == 2 and np.shape(y)[1] == 1


def _numbers_or_words(labels: np.ndarray) -> np.ndarray:
    """Return labels with the type that objects have lost on the way, in pandas for example."""
    if labels.dtype != object:
        return labels
    typed = np.array(labels.tolist())
    if typed.dtype.kind not in "biuf" and not all(isinstance(label, str) for label in labels.flat):
        kinds = sorted({type(label).__name__ for label in labels.flat})
        raise ValueError(f"Unknown label type: y must hold labels of one kind, got {', '.join(kinds)}")
    return typed
