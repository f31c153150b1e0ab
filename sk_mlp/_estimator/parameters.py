"""Checks of the estimators' parameters, each alone and in combination, and the settings that training reads."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import lru_cache
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import nn

from sk_mlp._compute.device import PRECISIONS
from sk_mlp._compute.modes import Surroundings, called_in
from sk_mlp._network.activations import ACTIVATIONS
from sk_mlp._network.init import INITIALISATIONS
from sk_mlp._training.optimizers import require_usable
from sk_mlp._training.schedules import SCHEDULES
from sk_mlp._training.settings import Settings

from .sklearn_private import HasMethods, Interval, InvalidParameterError, Options, StrOptions, make_constraint


class _OptimizerClass(HasMethods):
    """Constraint that accepts optimizer classes of `torch.optim` and their subclasses.

    It derives from a constraint class of scikit-learn, because scikit-learn accepts only its own constraints.
    """

    def is_satisfied_by(self, val: Any) -> bool:
        return isinstance(val, type) and issubclass(val, torch.optim.Optimizer)

    def __str__(self) -> str:
        return "a torch.optim.Optimizer class, such as torch.optim.RMSprop"


CONSTRAINTS: dict[str, list[Any]] = {
    "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
    "activation": [StrOptions(set(ACTIVATIONS)), "array-like", callable],
    "solver": [StrOptions({"lbfgs", "sgd", "adam", "adamw"}), _OptimizerClass("step")],
    "alpha": [Interval(Real, 0, None, closed="left")],
    "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    "learning_rate": [StrOptions(set(SCHEDULES)), callable],
    "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
    "power_t": [Interval(Real, 0, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "shuffle": ["boolean"],
    "random_state": ["random_state"],
    "tol": [Interval(Real, 0, None, closed="left")],
    "verbose": ["verbose"],
    "warm_start": ["boolean"],
    "momentum": [Interval(Real, 0, 1, closed="both")],
    "nesterovs_momentum": ["boolean"],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="left")],
    "beta_1": [Interval(Real, 0, 1, closed="left")],
    "beta_2": [Interval(Real, 0, 1, closed="left")],
    "epsilon": [Interval(Real, 0, None, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
    "max_fun": [Interval(Integral, 1, None, closed="left")],
    "device": [str],
    "dtype": [StrOptions(set(PRECISIONS))],
    "dropout": [Interval(Real, 0, 1, closed="left"), "array-like"],
    "normalization": [StrOptions({"layer", "batch"}), None],
    "init": [StrOptions(set(INITIALISATIONS))],
    "module": [callable, None],
    "weight_decay": [Interval(Real, 0, None, closed="left")],
    "solver_kwargs": [dict, None],
    "warmup_epochs": [Interval(Integral, 0, None, closed="left")],
    "max_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
    "scoring": [str, callable, None],
    "max_time": [Interval(Real, 0, None, closed="neither"), None],
}


# Parameters that are converted to `dtype` in training, and the solvers that read them. Those of _POSITIVE must not
# become 0 by the conversion.
_IN_EPOCHS = {"sgd", "adam", "adamw", "a class of torch.optim"}
_FINITE = {"alpha": {*_IN_EPOCHS, "lbfgs"}, "weight_decay": {"adamw"}}
_POSITIVE = {"learning_rate_init": _IN_EPOCHS, "max_grad_norm": _IN_EPOCHS, "epsilon": {"adam", "adamw"}}


# Types that are immutable and small, so that results for them can be cached.
_PLAIN = {bool, int, float, str, type(None), tuple}


def are_allowed(estimator: BaseEstimator, names: Iterable[str]) -> bool:
    """Whether the named parameters have valid values.

    Results for plain values are cached, because checking all parameters takes a tenth of the time of a small fit.
    """
    cls: Any = type(estimator)
    names = tuple(names)
    values = [getattr(estimator, name) for name in names]
    if _PLAIN.issuperset(map(type, values)):
        try:
            return _are_allowed(cls, names, *values)
        except TypeError:  # a tuple with an element that has no hash
            pass
    return _are_allowed.__wrapped__(cls, names, *values)


# The largest number of a dtype, and the smallest above 0.
_RANGES = {
    precision.array: (float(np.finfo(precision.array).max), float(np.finfo(precision.array).smallest_subnormal))
    for precision in PRECISIONS.values()
}


@lru_cache(maxsize=256, typed=True)
def _are_allowed(cls: Any, names: tuple[str, ...], *values: Any) -> bool:
    """Whether these values are valid for the named parameters of an estimator class."""
    return all(
        cls._parameter_constraints[name] == "no_validation"
        or any(make_constraint(one).is_satisfied_by(value) for one in cls._parameter_constraints[name])
        for name, value in zip(names, values, strict=True)
    )


def check_representable(estimator: BaseEstimator) -> None:
    """Raise ValueError for parameters that `dtype` cannot represent: too large, or positive but 0 in it, like 1e-50."""
    solver = estimator.solver if isinstance(estimator.solver, str) else "a class of torch.optim"
    read = [name for name, solvers in (_FINITE | _POSITIVE).items() if solver in solvers]
    if isinstance(estimator.loss, str) and estimator.loss == "huber":
        read.append("huber_delta")
    dtype = PRECISIONS[estimator.dtype].array
    largest, smallest = _RANGES[dtype]
    for name in read:
        value = getattr(estimator, name)
        if value is None:
            continue
        if not value <= largest:
            raise ValueError(f"{name} must be finite in {dtype}, got {value!r}")
        if 0 < value < smallest and name not in _FINITE:
            raise ValueError(f"{name} must be above 0 in {dtype}, got {value!r}")


def check_together(estimator: BaseEstimator, *, has_validation: bool) -> None:
    """Raise ValueError for parameters that are valid alone but not in combination."""
    solver, options = estimator.solver, estimator.solver_kwargs
    if isinstance(solver, type):
        require_usable(solver, options or {}, estimator.learning_rate_init)
    elif options:
        raise ValueError(f"solver_kwargs must come with a torch.optim.Optimizer class, got solver={solver!r}")
    if isinstance(estimator.module, nn.Module):
        raise ValueError(
            f"module must be a class or a function (n_features, n_outputs) -> nn.Module, "
            f"got an instance, {estimator.module!r}"
        )
    changed = _changes_of_the_network(estimator)
    if solver == "lbfgs" and changed:
        raise ValueError(
            f"dropout and normalization must come with a solver that works in epochs, got {changed} with 'lbfgs'"
        )
    if solver == "lbfgs" and has_validation:
        raise ValueError("X_val must come with a solver that works in epochs, got solver='lbfgs'")
    if estimator.module is not None and changed:
        raise ValueError(f"module must build the whole network itself, got {changed} besides")


# Parameters that users give the value of another one: the types of such values, and the parameter that was meant.
_MEANT_FOR = {"learning_rate": (Real, "learning_rate_init"), "loss": (Integral | tuple | list, "hidden_layer_sizes")}


@contextmanager
def hint_for(estimator: BaseEstimator) -> Iterator[None]:
    """Add to scikit-learn's error about a parameter the one that the user has probably meant."""
    try:
        yield
    except InvalidParameterError as error:
        for name, (kind, meant) in _MEANT_FOR.items():
            value = getattr(estimator, name)
            if isinstance(value, kind) and not isinstance(value, bool) and f"'{name}' parameter" in str(error):
                raise InvalidParameterError(f"{error} Did you mean {meant}={value!r}?") from None
        raise


class _Reader(NamedTuple):
    """When one of our own parameters has an effect, and the text that says so."""

    default: Any
    is_read: Callable[[Any, bool], bool]  # from the estimator, and whether there are rows to validate on
    rule: str


# Parameters that scikit-learn's MLP lacks: a user who sets one expects an effect. Unused parameters of scikit-learn's
# MLP are ignored without a warning, as in scikit-learn.
_READERS = {
    "quantile": _Reader(0.5, lambda e, _: _is(e.loss, "quantile"), "loss='quantile'"),
    "huber_delta": _Reader(1.0, lambda e, _: _is(e.loss, "huber"), "loss='huber'"),
    "weight_decay": _Reader(0.01, lambda e, _: _is(e.solver, "adamw"), "solver='adamw'"),
    "scoring": _Reader(None, lambda e, validates: validates, "rows to validate on: early_stopping=True or X_val"),
    "warmup_epochs": _Reader(0, lambda e, _: not _is(e.solver, "lbfgs"), "a solver that works in epochs"),
    "max_grad_norm": _Reader(None, lambda e, _: not _is(e.solver, "lbfgs"), "a solver that works in epochs"),
}


def _is(value: Any, name: str) -> bool:
    """Whether a parameter is the string `name`; comparing an array with it would not give a truth value."""
    return isinstance(value, str) and value == name


def warn_of_unread(estimator: BaseEstimator, *, has_validation: bool, one_epoch: bool) -> None:
    """Warn of parameters that were set but have no effect."""
    validates = has_validation or (estimator.early_stopping and not _is(estimator.solver, "lbfgs"))
    for name, (default, is_read, rule) in _READERS.items():
        value = getattr(estimator, name, default)
        if value is default or value == default or is_read(estimator, validates):
            continue
        if name == "scoring" and one_epoch:
            continue  # one call may have rows to validate on and the next call none
        warnings.warn(f"{name}={value!r} has no effect without {rule}", UserWarning, stacklevel=7)  # the user's line


def settings_of(estimator: BaseEstimator, n_train: int, users: Surroundings) -> Settings:
    """Return the parameters that training reads, for `n_train` rows; a user-defined schedule is called in `users`."""
    values = {f.name: getattr(estimator, f.name) for f in fields(Settings)}
    # A copy: the caller may change the dictionary while a fit waits.
    values["solver_kwargs"] = dict(estimator.solver_kwargs or {})
    if callable(estimator.learning_rate):
        values["learning_rate"] = called_in(users, estimator.learning_rate)
    is_lbfgs = estimator.solver == "lbfgs"
    values["batch_size"] = n_train if is_lbfgs else _clip_batch_size(estimator.batch_size, n_train)
    return Settings(**values)


def _clip_batch_size(batch_size: int | str, n_samples: int) -> int:
    """Return the number of rows in a batch: 200 for "auto", and at most all rows."""
    if batch_size == "auto":
        return min(200, n_samples)
    assert not isinstance(batch_size, str)
    if batch_size > n_samples:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped "
            f"(batch_size={batch_size}, {n_samples} training samples)",
            stacklevel=7,  # the line of the user, past the estimator's own methods
        )
    return min(int(batch_size), n_samples)


def _changes_of_the_network(estimator: BaseEstimator) -> str:
    """Return the normalization and dropout parameters that are set, as text in the form `name=value`."""
    normalization, dropout = estimator.normalization, estimator.dropout
    changes = [] if normalization is None else [f"normalization={normalization!r}"]
    if any(np.ravel(np.array(dropout, dtype=object)) != 0):
        changes.append(f"dropout={dropout!r}")
    return ", ".join(changes)
