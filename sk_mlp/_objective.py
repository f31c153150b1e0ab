"""What is minimised: pointwise losses on raw predictions, their gradients, inverse links and scores.

Conventions
-----------
- Inside the engine a `raw_prediction` has shape `(k, n_outputs, n)`: outputs before rows, because reductions over
  a short last dimension are several times slower.
- A `target` has the same shape, but for `CrossEntropy`, whose target are class indices `(k, 1, n)`.
- Links are canonical, so that the gradient in raw space is `inverse_link(raw_prediction) - target`.
- Every loss is computed from the raw prediction, never from a probability: no clipping, no -inf.
- Losses of a row are half deviances; over several outputs they add up, except for `SquaredError`, which reports their
  mean but minimises their sum, as scikit-learn's `MLPRegressor` does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Above this argument softplus(z) equals z to the last bit of a float64; exp of it is finite in float32.
_SOFTPLUS_LINEAR = 40.0
_TAIL = 20.0  # logit from which the sigmoid gives way to a slower tail
_RARE = 350.0  # minus the log-probability from which exp does


def _exp_above_zero(log_proba: Tensor) -> Tensor:
    """Return float64 probabilities that keep their order above 0: those under exp(-350) end at exp(-700)."""
    rarity = -log_proba
    if rarity.max() <= _RARE:
        return log_proba.exp()
    slow = 2 * _RARE - _RARE**2 / rarity.clamp_min(_RARE)
    return torch.where(rarity > _RARE, slow, rarity).neg_().exp_()


@lru_cache(maxsize=32)
def _minus_ones(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return -1 everywhere, made once a shape and not once a step."""
    return torch.tensor(-1.0, dtype=dtype, device=device).expand(shape)


def _average(values: Tensor, sample_weight: Tensor | None) -> Tensor:
    """Return float64 means over the rows, the last axis; `sample_weight` broadcasts to `values`."""
    if sample_weight is None:
        return values.double().mean(-1)
    weight = sample_weight.double()
    return (values * weight).sum(-1) / weight.sum(-1)


@dataclass(frozen=True)
class Objective(ABC):
    """The loss of one task, in raw space."""

    @property
    @abstractmethod
    def out_activation(self) -> str:
        """scikit-learn's name of the inverse link."""

    @abstractmethod
    def loss_and_gradient(self, raw: Tensor, target: Tensor, losses: Tensor, gradient: Tensor) -> None:
        """Fill `losses` `(k, n)` and `gradient` `(k, n_outputs, n)`; `raw` may be overwritten."""

    @abstractmethod
    def inverse_link(self, raw: Tensor) -> Tensor:
        """Map raw predictions to probabilities or expected values, same shape."""

    @abstractmethod
    def score(self, raw: Tensor, target: Tensor, sample_weight: Tensor | None) -> Tensor:
        """Score each member `(k,)`, more is better; NaN where a regression prediction is not finite."""


class Classification(Objective):
    """Scored by accuracy."""

    @abstractmethod
    def choose(self, raw: Tensor) -> Tensor:
        """Return the most probable target: class indices `(k, 1, n)`, or zeros and ones `(k, n_outputs, n)`."""

    @abstractmethod
    def log_proba(self, raw: Tensor) -> Tensor:
        """Return log-probabilities `(k, n_classes or n_labels, n)`, finite for finite raw predictions."""

    def score(self, raw: Tensor, target: Tensor, sample_weight: Tensor | None) -> Tensor:
        return _average((self.choose(raw) == target).all(1), sample_weight)


class BinaryCrossEntropy(Classification):
    """Bernoulli negative log-likelihood, summed over outputs.

    `loss = softplus((1 - 2 y) z)`, the form without cancellation for `y` in {0, 1}.
    """

    out_activation = "logistic"

    def loss_and_gradient(self, raw: Tensor, target: Tensor, losses: Tensor, gradient: Tensor) -> None:
        torch.mul(raw, target, out=gradient)
        torch.sub(raw, gradient, alpha=2, out=gradient)
        torch.ops.aten.softplus.out(gradient, 1.0, _SOFTPLUS_LINEAR, out=gradient)
        torch.sum(gradient, 1, out=losses)
        torch.sigmoid(raw, out=gradient)
        gradient.sub_(target)

    def inverse_link(self, raw: Tensor) -> Tensor:
        """Return the sigmoid, kept above 0 in the order of the logits."""
        return _exp_above_zero(F.logsigmoid(raw))

    def choose(self, raw: Tensor) -> Tensor:
        return (raw > 0).long()

    def log_proba(self, raw: Tensor) -> Tensor:
        # softplus over its whole range: torch's logsigmoid is the same function with its sign turned.
        return F.logsigmoid(raw)


class OneClass(BinaryCrossEntropy):
    """Binary cross-entropy where only one class was seen, which is chosen whatever the network says."""

    def choose(self, raw: Tensor) -> Tensor:
        return torch.zeros_like(raw, dtype=torch.long)


class MultilabelCrossEntropy(BinaryCrossEntropy):
    """A binary cross-entropy for each label."""

    def inverse_link(self, raw: Tensor) -> Tensor:
        """Return the sigmoid, kept strictly inside (0, 1) and strictly increasing.

        Next to 1 a float64 runs out of digits, and a sigmoid would tie what the logits still tell apart. From a logit
        of 20 on, `1 - p` therefore falls like `20 / z` instead of `exp(-z)`; `p` is within 2.1e-9 of the sigmoid.
        """
        slow = 1 - torch.sigmoid(raw.new_tensor(-_TAIL)) * _TAIL / raw.clamp_min(_TAIL)
        return torch.where(raw > _TAIL, slow, _exp_above_zero(F.logsigmoid(raw))).clamp_max(1 - 2.0**-53)


class CrossEntropy(Classification):
    """Multinomial negative log-likelihood, `loss = logsumexp(z) - z[y]`."""

    out_activation = "softmax"

    def loss_and_gradient(self, raw: Tensor, target: Tensor, losses: Tensor, gradient: Tensor) -> None:
        torch.log_softmax(raw, 1, out=gradient)
        torch.gather(gradient, 1, target, out=losses.unsqueeze(1))
        losses.neg_()
        gradient.exp_()
        gradient.scatter_add_(1, target, _minus_ones(target.shape, gradient.dtype, gradient.device))

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
        """Return R2 averaged over outputs; a constant output scores 1 if met exactly, else 0."""
        # R2 does not change with the origin; the first row as origin makes a constant output exactly zero.
        origin = target[..., :1].double()
        y, y_pred = target.double() - origin, self.inverse_link(raw).double() - origin
        weight = None if sample_weight is None else sample_weight.unsqueeze(1)
        residual = _average((y - y_pred).square(), weight)
        total = _average((y - _average(y, weight).unsqueeze(-1)).square(), weight)
        constant = torch.where(residual == 0, 1.0, 0.0)
        r2 = torch.where(total == 0, constant, 1 - residual / total).mean(1)
        return torch.where(y_pred.isfinite().all(-1).all(-1), r2, torch.nan)


class SquaredError(_Regression):
    """Half the squared error, `loss = mean((y - z)**2) / 2` over outputs."""

    out_activation = "identity"

    def loss_and_gradient(self, raw: Tensor, target: Tensor, losses: Tensor, gradient: Tensor) -> None:
        torch.sub(raw, target, out=gradient)
        torch.mul(gradient, gradient, out=raw)
        torch.sum(raw, 1, out=losses)
        losses.mul_(0.5 / raw.shape[1])

    def inverse_link(self, raw: Tensor) -> Tensor:
        return raw


class PoissonDeviance(_Regression):
    """Half the Poisson deviance with a log link, `loss = y log(y) - y z - y + exp(z)`."""

    out_activation = "exp"

    def loss_and_gradient(self, raw: Tensor, target: Tensor, losses: Tensor, gradient: Tensor) -> None:
        torch.exp(raw, out=gradient)
        raw.mul_(target).neg_().add_(gradient)
        raw.add_(torch.xlogy(target, target)).sub_(target)
        torch.sum(raw, 1, out=losses)
        gradient.sub_(target)

    def inverse_link(self, raw: Tensor) -> Tensor:
        return raw.exp()


REGRESSION_LOSSES: dict[str, Objective] = {"squared_error": SquaredError(), "poisson": PoissonDeviance()}

# The regression objective that a fitted `out_activation_` belongs to.
REGRESSION_LINKS = {objective.out_activation: objective for objective in REGRESSION_LOSSES.values()}
