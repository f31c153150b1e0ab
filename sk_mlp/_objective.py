"""What is minimized: pointwise losses of raw predictions, their gradients, inverse links and scores.

Conventions
-----------
- In this package a `raw_prediction` has shape `(k, n_outputs, n)`: outputs before rows, because reductions over a
  short last dimension are several times slower.
- A `target` has the same shape, with two exceptions: the target of `CrossEntropy` is class indices `(k, 1, n)`, and
  `GaussianLikelihood` has two raw predictions for each target.
- Every loss is computed from the raw prediction, never from a probability: no clipping, no -inf.
- The losses of a row are half deviances. The loss of several outputs is their sum, except for `SquaredError`, which
  reports the mean but minimizes the sum, like scikit-learn's `MLPRegressor`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from math import log
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sk_mlp._compute.intra_op import callers_threads

from ._alike import is_same_function

# Above this argument, softplus(z) equals z to the last bit of a float64; exp of it is finite in float32.
_SOFTPLUS_LINEAR = 40.0
_TAIL = 20.0  # above this logit, the sigmoid is replaced by a slower tail
_RARE = 350.0  # above this value of minus the log-probability, exp is replaced by a slower tail
_LEAST_SHARE = 1e-12  # minimum frequency of a class, or minimum mean, in the loss of a constant prediction
_REWEIGHTINGS = 6  # number of reweightings of rows for Huber's location, which has then almost converged
_LOG_LEAST_VARIANCE = log(1e-12)  # keeps a Gaussian likelihood bounded where a prediction is exact


def _exp_above_zero(log_proba: Tensor) -> Tensor:
    """Return float64 probabilities that keep their order above 0: those below exp(-350) are mapped above exp(-700)."""
    if log_proba.min().item() >= -_RARE:
        return log_proba.exp()
    rarity = -log_proba
    slow = 2 * _RARE - _RARE**2 / rarity.clamp_min(_RARE)
    return torch.where(rarity > _RARE, slow, rarity).neg_().exp_()


@lru_cache(maxsize=32)
def _all(value: float, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a tensor with one value everywhere, cached because making it in each step would take time."""
    return torch.tensor(value, dtype=dtype, device=device).expand(shape)


def average(values: Tensor, sample_weight: Tensor | None) -> Tensor:
    """Return float64 means over the rows, the last axis; `sample_weight` broadcasts to `values`."""
    if sample_weight is None:
        return values.double().mean(-1)
    weight = sample_weight.double()
    return (values * weight).sum(-1) / weight.sum(-1)


def _means(values: Tensor, sample_weight: Tensor) -> Tensor:
    """Return weighted means over the rows, `(1, n_outputs, 1)`."""
    return average(values, sample_weight).unsqueeze(-1)


def _entropy(shares: np.ndarray) -> np.ndarray:
    """Return `-p log(p)`."""
    return -shares * np.log(np.maximum(shares, _LEAST_SHARE))


def _quantiles(target: Tensor, sample_weight: Tensor, quantile: float) -> Tensor:
    """Return weighted quantiles over the rows, `(1, n_outputs, 1)`: the first value with enough weight up to it."""
    ordered, index = target.sort(-1)
    reached = sample_weight[index].cumsum(-1)
    first = (reached < quantile * reached[..., -1:]).sum(-1, keepdim=True)
    return ordered.gather(-1, first.clamp_max(target.shape[-1] - 1))


class Objective(ABC):
    """The loss of one task, a function of raw predictions. Objectives of one class with equal parameters are equal."""

    n_raw: ClassVar[int] = 1  # raw predictions for each output
    # The default metric of early stopping: scikit-learn's score if its MLP has the loss.
    scoring: ClassVar[str] = "loss"
    is_recordable: ClassVar[bool] = True  # whether each `loss_and_gradient` is the same operations on tensors

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    @property
    @abstractmethod
    def out_activation(self) -> str:
        """Name of the inverse link, as in scikit-learn."""

    @abstractmethod
    def loss_and_gradient(self, raw: Tensor, target: Tensor, losses: Tensor, gradient: Tensor) -> None:
        """Fill `losses` `(k, n)` and `gradient` `(k, n_outputs, n)`; `raw` may be overwritten."""

    @abstractmethod
    def inverse_link(self, raw: Tensor) -> Tensor:
        """Return probabilities or expected values for raw predictions, with the same shape."""

    def constant(self, target: Tensor, sample_weight: Tensor, n_raw: int) -> Tensor | None:
        """Return the constant raw prediction `(1, n_raw, 1)` with the smallest loss; None if it is not known.

        Targets are float64 `(1, n_outputs, n)`, or class indices; weights are `(n,)`.
        """
        return None

    def constant_loss(self, target: np.ndarray, sample_weight: np.ndarray, n_raw: int) -> float | None:
        """Return the mean loss of the best constant for targets `(n, n_outputs)` and weights `(n,)`; None if not known.

        The most common losses override this with a closed form in NumPy, because this takes a hundredth of the time of
        a small fit.
        """
        targets, weights = torch.from_numpy(target.T[None].astype(float)), torch.from_numpy(sample_weight)
        constant = self.constant(targets, weights, n_raw)
        if constant is None:
            return None
        losses = self.losses(constant.expand(-1, -1, len(target)).contiguous(), targets)
        return average(losses, weights).item()

    def losses(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return the losses `(n,)` of one network's raw predictions; `raw` may be overwritten."""
        losses = raw.new_empty(1, raw.shape[-1])
        self.loss_and_gradient(raw, target, losses, torch.empty_like(raw))
        return losses[0]

    @abstractmethod
    def score(self, raw: Tensor, target: Tensor, sample_weight: Tensor | None) -> Tensor:
        """Return the score of each member `(k,)`, larger is better; NaN if a regression prediction is not finite."""


class Classification(Objective):
    """Scored by accuracy; `label_smoothing` is the fraction of a target that is spread evenly over all classes."""

    scoring = "accuracy"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def _smoothed(self, shares: Any, n_classes: int) -> Any:
        """Return class frequencies (an array or a tensor) after label smoothing."""
        return shares * (1 - self.label_smoothing) + self.label_smoothing / n_classes

    @abstractmethod
    def choose(self, raw: Tensor) -> Tensor:
        """Return the most probable target: class indices `(k, 1, n)`, or zeros and ones `(k, n_outputs, n)`."""

    @abstractmethod
    def log_proba(self, raw: Tensor) -> Tensor:
        """Return log-probabilities `(k, n_classes or n_labels, n)`, finite for finite raw predictions."""

    def score(self, raw: Tensor, target: Tensor, sample_weight: Tensor | None) -> Tensor:
        return average((self.choose(raw) == target).all(1), sample_weight)


class BinaryCrossEntropy(Classification):
    """Bernoulli negative log-likelihood, summed over outputs.

    `loss = softplus(s)` with `s = (1 - 2 y) z`, the form without cancellation for `y` in {0, 1}. Smoothing moves `y` by
    `label_smoothing / 2` towards the other label, and adds `-s` times this value to the loss.
    """

    out_activation = "logistic"

    def loss_and_gradient(self, raw: Tensor, target: Tensor, losses: Tensor, gradient: Tensor) -> None:
        torch.mul(raw, target, out=gradient)
        torch.sub(raw, gradient, alpha=2, out=gradient)
        smoothed = gradient.sum(1).mul_(self.label_smoothing / 2) if self.label_smoothing else None
        torch.ops.aten.softplus.out(gradient, 1.0, _SOFTPLUS_LINEAR, out=gradient)
        torch.sum(gradient, 1, out=losses)
        torch.sigmoid(raw, out=gradient)
        gradient.sub_(target)
        if smoothed is not None:
            losses.sub_(smoothed)
            gradient.add_(target, alpha=self.label_smoothing).sub_(self.label_smoothing / 2)

    def constant(self, target: Tensor, sample_weight: Tensor, n_raw: int) -> Tensor:
        return self._smoothed(_means(target, sample_weight), 2).logit(_LEAST_SHARE)

    def constant_loss(self, target: np.ndarray, sample_weight: np.ndarray, n_raw: int) -> float:
        shares = self._smoothed(sample_weight @ target / sample_weight.sum(), 2)
        return float((_entropy(shares) + _entropy(1 - shares)).sum())

    def inverse_link(self, raw: Tensor) -> Tensor:
        """Return the sigmoid, kept above 0 in the order of the logits."""
        proba = torch.sigmoid(raw)
        if raw.min().item() >= -_RARE:
            return proba
        return torch.where(raw < -_RARE, _exp_above_zero(F.logsigmoid(raw)), proba)

    def choose(self, raw: Tensor) -> Tensor:
        return (raw > 0).long()

    def log_proba(self, raw: Tensor) -> Tensor:
        # logsigmoid is minus softplus of minus its argument, exact over the whole range.
        return F.logsigmoid(raw)


class OneClass(BinaryCrossEntropy):
    """Binary cross-entropy if there is only one class, which is always predicted."""

    def choose(self, raw: Tensor) -> Tensor:
        return torch.zeros_like(raw, dtype=torch.long)


class MultilabelCrossEntropy(BinaryCrossEntropy):
    """A binary cross-entropy for each label."""

    def inverse_link(self, raw: Tensor) -> Tensor:
        """Return the sigmoid, kept strictly inside (0, 1) and strictly increasing.

        Near 1, a float64 has too few digits, so that different logits would have equal sigmoids. Above a logit of 20,
        `1 - p` therefore falls like `20 / z` instead of `exp(-z)`; `p` is within 2.1e-9 of the sigmoid.
        """
        slow = 1 - torch.sigmoid(raw.new_tensor(-_TAIL)) * _TAIL / raw.clamp_min(_TAIL)
        return torch.where(raw > _TAIL, slow, super().inverse_link(raw)).clamp_max(1 - 2.0**-53)


class CrossEntropy(Classification):
    """Multinomial negative log-likelihood, `loss = logsumexp(z) - z[y]`.

    Smoothing spreads the fraction `label_smoothing` of a row evenly over all classes (Szegedy et al., CVPR 2016), like
    `torch.nn.CrossEntropyLoss`.
    """

    out_activation = "softmax"

    def loss_and_gradient(self, raw: Tensor, target: Tensor, losses: Tensor, gradient: Tensor) -> None:
        torch.log_softmax(raw, 1, out=gradient)
        torch.gather(gradient, 1, target, out=losses.unsqueeze(1))
        losses.neg_()
        if self.label_smoothing:
            losses.mul_(1 - self.label_smoothing).sub_(gradient.mean(1), alpha=self.label_smoothing)
        gradient.exp_()
        gradient.scatter_add_(1, target, _all(self.label_smoothing - 1, target.shape, gradient.dtype, gradient.device))
        if self.label_smoothing:
            gradient.sub_(self.label_smoothing / raw.shape[1])

    def constant(self, target: Tensor, sample_weight: Tensor, n_raw: int) -> Tensor:
        counts = torch.bincount(target[0, 0], sample_weight, minlength=n_raw)
        return self._smoothed(counts / counts.sum(), n_raw).clamp_min(_LEAST_SHARE).log().view(1, -1, 1)

    def constant_loss(self, target: np.ndarray, sample_weight: np.ndarray, n_raw: int) -> float:
        counts = np.bincount(target[:, 0], sample_weight, minlength=n_raw)
        return float(_entropy(self._smoothed(counts / counts.sum(), n_raw)).sum())

    def inverse_link(self, raw: Tensor) -> Tensor:
        """Return the softmax, kept above 0 in the order of the logits."""
        return _exp_above_zero(torch.log_softmax(raw, 1))

    def choose(self, raw: Tensor) -> Tensor:
        return raw.argmax(1, keepdim=True)

    def log_proba(self, raw: Tensor) -> Tensor:
        return torch.log_softmax(raw, 1)


class _Regression(Objective):
    """Scored by the coefficient of determination."""

    def score(self, raw: Tensor, target: Tensor, sample_weight: Tensor | None) -> Tensor:
        """Return R2, averaged over outputs; for a constant output it is 1 if the prediction is exact, else 0."""
        # R2 does not depend on the origin; with the first row as origin, a constant output is exactly zero.
        origin = target[..., :1].double()
        y, y_pred = target.double() - origin, self.inverse_link(raw).double() - origin
        weight = None if sample_weight is None else sample_weight.unsqueeze(1)
        residual = average((y - y_pred).square(), weight)
        total = average((y - average(y, weight).unsqueeze(-1)).square(), weight)
        constant = torch.where(residual == 0, 1.0, 0.0)
        r2 = torch.where(total == 0, constant, 1 - residual / total).mean(1)
        return torch.where(y_pred.isfinite().all(-1).all(-1), r2, torch.nan)


class _OnValues(_Regression):
    """Losses whose raw prediction is the value itself."""

    out_activation = "identity"

    def inverse_link(self, raw: Tensor) -> Tensor:
        return raw


class _OnLogarithms(_Regression):
    """Losses whose raw prediction is the logarithm of the value."""

    out_activation = "exp"

    def constant(self, target: Tensor, sample_weight: Tensor, n_raw: int) -> Tensor:
        return _means(target, sample_weight).clamp_min(_LEAST_SHARE).log()

    def inverse_link(self, raw: Tensor) -> Tensor:
        return raw.exp()


class SquaredError(_OnValues):
    """Half the squared error, `loss = mean((y - z)**2) / 2` over outputs."""

    scoring = "r2"

    def constant(self, target: Tensor, sample_weight: Tensor, n_raw: int) -> Tensor:
        return _means(target, sample_weight)

    def constant_loss(self, target: np.ndarray, sample_weight: np.ndarray, n_raw: int) -> float:
        share = sample_weight / sample_weight.sum()
        residual = target - share @ target.astype(float)
        return float(0.5 * (share @ residual**2).mean())

    def loss_and_gradient(self, raw: Tensor, target: Tensor, losses: Tensor, gradient: Tensor) -> None:
        torch.sub(raw, target, out=gradient)
        torch.mul(gradient, gradient, out=raw)
        torch.sum(raw, 1, out=losses)
        losses.mul_(0.5 / raw.shape[1])


class PoissonDeviance(_OnLogarithms):
    """Half the Poisson deviance with a log link, `loss = y log(y) - y z - y + exp(z)`."""

    scoring = "r2"

    def loss_and_gradient(self, raw: Tensor, target: Tensor, losses: Tensor, gradient: Tensor) -> None:
        torch.exp(raw, out=gradient)
        raw.mul_(target).neg_().add_(gradient)
        raw.add_(torch.xlogy(target, target)).sub_(target)
        torch.sum(raw, 1, out=losses)
        gradient.sub_(target)


class GammaDeviance(_OnLogarithms):
    """Half the gamma deviance with a log link, `loss = z + y exp(-z) - log(y) - 1`."""

    def loss_and_gradient(self, raw: Tensor, target: Tensor, losses: Tensor, gradient: Tensor) -> None:
        torch.neg(raw, out=gradient)
        gradient.exp_().mul_(target)
        raw.add_(gradient).sub_(target.log()).sub_(1)
        torch.sum(raw, 1, out=losses)
        gradient.neg_().add_(1)


class AbsoluteError(_OnValues):
    """The absolute error, `loss = |y - z|`; its optimum is the median."""

    def constant(self, target: Tensor, sample_weight: Tensor, n_raw: int) -> Tensor:
        return _quantiles(target, sample_weight, 0.5)

    def loss_and_gradient(self, raw: Tensor, target: Tensor, losses: Tensor, gradient: Tensor) -> None:
        torch.sub(raw, target, out=gradient)
        torch.abs(gradient, out=raw)
        torch.sum(raw, 1, out=losses)
        gradient.sign_()


class PinballLoss(_OnValues):
    """The pinball loss, `quantile (y - z)` where `y > z`, else `(1 - quantile) (z - y)`.

    Its optimum is the quantile (Koenker and Bassett, 1978).
    """

    def __init__(self, quantile: float) -> None:
        self.quantile = quantile

    def constant(self, target: Tensor, sample_weight: Tensor, n_raw: int) -> Tensor:
        return _quantiles(target, sample_weight, self.quantile)

    def loss_and_gradient(self, raw: Tensor, target: Tensor, losses: Tensor, gradient: Tensor) -> None:
        raw.sub_(target)
        torch.sign(raw, out=gradient)
        gradient.mul_(0.5).add_(0.5 - self.quantile)
        torch.sum(raw.mul_(gradient), 1, out=losses)


class HuberLoss(_OnValues):
    """Huber's loss, half the squared error up to a residual of `delta`, linear beyond (Huber, 1964)."""

    def __init__(self, delta: float) -> None:
        self.delta = delta

    def constant(self, target: Tensor, sample_weight: Tensor, n_raw: int) -> Tensor:
        best = _quantiles(target, sample_weight, 0.5)
        for _ in range(_REWEIGHTINGS):
            # A mean in which residuals larger than delta count as delta.
            weight = sample_weight * (self.delta / (target - best).abs().clamp_min(self.delta))
            best = (weight * target).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True)
        return best

    def loss_and_gradient(self, raw: Tensor, target: Tensor, losses: Tensor, gradient: Tensor) -> None:
        raw.sub_(target)
        torch.clamp(raw, -self.delta, self.delta, out=gradient)
        torch.sum(raw.sub_(gradient, alpha=0.5).mul_(gradient), 1, out=losses)


class GaussianLikelihood(_Regression):
    """Gaussian negative log-likelihood without its constant, `loss = (log(v) + (y - m)**2 / v) / 2`.

    Raw predictions are all means, then all logarithms `s` of variances (Nix and Weigend, 1994); `v = exp(s) + 1e-12`.
    Everything is computed from `log(v)`, which is finite even if `v` overflows.
    """

    out_activation = "identity"
    n_raw = 2

    def loss_and_gradient(self, raw: Tensor, target: Tensor, losses: Tensor, gradient: Tensor) -> None:
        (residual, log_variance), (mean_slope, variance_slope) = raw.chunk(2, 1), gradient.chunk(2, 1)
        residual.sub_(target)
        log_v = _log_v(log_variance)
        torch.mul(residual, (-log_v).exp(), out=mean_slope)
        surprise = residual.mul_(mean_slope)  # (y - m)**2 / v
        torch.sum(surprise + log_v, 1, out=losses)
        losses.mul_(0.5)
        torch.mul(surprise, -0.5, out=variance_slope).add_(0.5)
        variance_slope.mul_((log_variance - log_v).exp())  # d log(v) / ds

    def constant(self, target: Tensor, sample_weight: Tensor, n_raw: int) -> Tensor:
        mean = _means(target, sample_weight)
        variance = _means((target - mean).square(), sample_weight)
        return torch.cat([mean, variance.clamp_min(_LEAST_SHARE).log()], 1)

    def inverse_link(self, raw: Tensor) -> Tensor:
        """Return the means."""
        return raw.chunk(2, 1)[0]


def _log_v(log_variance: Tensor) -> Tensor:
    """Return `log(exp(log_variance) + 1e-12)`."""
    least = _all(_LOG_LEAST_VARIANCE, torch.Size(), log_variance.dtype, log_variance.device)
    return torch.logaddexp(log_variance, least)


def standard_deviation(raw: Tensor) -> Tensor:
    """Return the standard deviations `(k, n_outputs, n)` for raw predictions of `GaussianLikelihood`."""
    return (0.5 * _log_v(raw.chunk(2, 1)[1])).exp()


class CustomLoss(Objective):
    """A user-defined loss, `function(raw_prediction, target) -> (n,)`, differentiated by autograd.

    Inverse link and score are those of `task`. The function gets one member, with rows first: raw predictions
    `(n, n_outputs)`, and a target `(n, n_outputs)` or class indices `(n,)`.
    """

    is_recordable = False

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], task: Objective) -> None:
        self.function, self.task = function, task

    def __eq__(self, other: object) -> bool:
        # Fits with equal losses train as one stack and call the function of one of them, so it must be the same.
        if not isinstance(other, CustomLoss) or self.task != other.task:
            return False
        return is_same_function(self.function, other.function)

    def __hash__(self) -> int:
        return hash((CustomLoss, self.task))  # a user-defined function need not be hashable

    @property
    def out_activation(self) -> str:
        return self.task.out_activation

    def loss_and_gradient(self, raw: Tensor, target: Tensor, losses: Tensor, gradient: Tensor) -> None:
        for i in range(len(raw)):
            # Autograd cannot use tensors that were made in inference mode; it can use copies that are made outside.
            with torch.inference_mode(False), torch.enable_grad(), callers_threads():
                rows, truth = raw[i].mT.clone().requires_grad_(), target[i].mT.clone()
                values = self.function(rows, truth if truth.is_floating_point() else truth[:, 0])
                self._require_one_a_row(values, len(rows))
                (slope,) = torch.autograd.grad(values.sum(), rows)
            losses[i] = values.detach()
            gradient[i] = slope.mT

    def inverse_link(self, raw: Tensor) -> Tensor:
        return self.task.inverse_link(raw)

    def score(self, raw: Tensor, target: Tensor, sample_weight: Tensor | None) -> Tensor:
        return self.task.score(raw, target, sample_weight)

    def _require_one_a_row(self, values: Tensor, n: int) -> None:
        """Raise ValueError unless `values` contains one loss for each row, and depends on the raw predictions."""
        if not isinstance(values, Tensor) or values.shape != (n,):
            found = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else repr(values)
            raise ValueError(
                f"loss must return a tensor of one loss a row, summed over outputs and not over rows, shape ({n},), "
                f"got {found}"
            )
        if not values.requires_grad:
            raise ValueError("loss must be a differentiable function of raw_prediction, got a tensor without a graph")


def regression_objective(
    loss: str | Callable[[Tensor, Tensor], Tensor], quantile: float, huber_delta: float
) -> Objective:
    """Return the objective for the parameters of a regressor."""
    if not isinstance(loss, str):
        return CustomLoss(loss, SquaredError())
    if loss == "quantile":
        return PinballLoss(quantile)
    return HuberLoss(huber_delta) if loss == "huber" else _PLAIN_LOSSES[loss]


_PLAIN_LOSSES: dict[str, Objective] = {
    "squared_error": SquaredError(),
    "absolute_error": AbsoluteError(),
    "poisson": PoissonDeviance(),
    "gamma": GammaDeviance(),
    "gaussian_nll": GaussianLikelihood(),
}
REGRESSION_LOSSES = {*_PLAIN_LOSSES, "quantile", "huber"}
# Inverse links of regression, by their names in `out_activation_`.
INVERSE_LINKS: dict[str, Callable[[Tensor], Tensor]] = {"identity": lambda raw: raw, "exp": torch.exp}
