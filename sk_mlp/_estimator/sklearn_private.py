"""All private names of scikit-learn that this package uses.

scikit-learn may remove any of them. What to do if one is missing:

- `fit_context`: validate parameters at the top of `fit` (`_validate_params`) and skip it where `get_config` says so.
- `HasMethods`, `Interval`, `Options`, `StrOptions`, `make_constraint`, `InvalidParameterError` and the estimators'
  `_parameter_constraints` and `_validate_params`: check the table of `parameters.py` with a few functions of our own.
- `check_sample_weight`: `check_array` of one dimension, and a check for negative values.
- `safe_indexing`: `X[rows]`, `X.iloc[rows]` for frames, lists by a comprehension.
- the callbacks' attributes and contexts: remove callbacks until there is another way; fits do not need them.
- `_accept_sample_weight` of scorers: look at the signature, as for all other callables.
- `_doc_link_module`, `_doc_link_template` and `_doc_link_url_param_generator`, which give an estimator's HTML
  representation its link: remove them, and there is no link.
- `_get_param_names`: remove our override, which only caches its result.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.base import _fit_context as fit_context
from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    InvalidParameterError,
    Options,
    StrOptions,
    make_constraint,
)
from sklearn.utils.validation import _check_sample_weight as check_sample_weight

__all__ = [
    "OF_A_FIT_UNDER_WAY",
    "HasMethods",
    "Interval",
    "InvalidParameterError",
    "Options",
    "StrOptions",
    "accepts_sample_weight",
    "begin_fit_of_callbacks",
    "check_sample_weight",
    "fit_context",
    "has_callbacks",
    "make_constraint",
    "safe_indexing",
    "without_callbacks",
]

# Attributes that scikit-learn sets on an estimator while it is fitted.
OF_A_FIT_UNDER_WAY = frozenset({"_callback_fit_ctx", "_parent_callback_ctx", "_skl_callbacks_to_teardown"})


def has_callbacks(estimator: BaseEstimator) -> bool:
    """Whether callbacks have been set on the estimator."""
    return bool(getattr(estimator, "_skl_callbacks", None))


def without_callbacks() -> dict[str, Any]:
    """Return the attributes of an estimator without callbacks."""
    return {"_skl_callbacks": []}


def begin_fit_of_callbacks(estimator: BaseEstimator, max_subtasks: int) -> Any:
    """Return scikit-learn's callback context of a fit with at most `max_subtasks` subtasks."""
    return estimator._init_callback_context(max_subtasks=max_subtasks)


def accepts_sample_weight(scorer: Callable[..., Any]) -> bool:
    """Whether a scorer accepts `sample_weight`: scikit-learn's scorers have a method for this, others an argument."""
    knows = getattr(scorer, "_accept_sample_weight", None)
    return bool(knows()) if knows else "sample_weight" in inspect.signature(scorer).parameters
