"""First-order optimizers over the flat parameters of k networks.

Every hyper-parameter is an operand that multiplies a flat buffer: a number where all members agree, else one value per
element (`Layout.spread`), so one rule serves one network or a hundred.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ._network import Layout
from ._task import Settings


class Optimizer(ABC):
    """What the optimizers share: k members, their rates, and slots of one value per parameter.

    `states` come from an earlier training's `state`, or are empty.
    """

    slots: tuple[str, ...] = ()

    def __init__(
        self,
        layout: Layout,
        parameters: Tensor,
        gradient: Tensor,
        settings: Sequence[Settings],
        states: Sequence[Mapping[str, Any]],
    ) -> None:
        self._layout, self._parameters, self._gradient = layout, parameters, gradient
        self._settings = settings
        self._slot = {name: self._join_slot(name, states) for name in self.slots}
        self._steps = [int(state.get("steps", 0)) for state in states]
        self._scratch = torch.empty_like(parameters)

    def set_rates(self, rates: Sequence[float]) -> None:
        """Set each member's learning rate for the steps to come."""
        self._rate = self._spread(rates)

    @abstractmethod
    def step(self) -> None:
        """Move the parameters once along the gradient."""

    def state(self, i: int) -> dict[str, Any]:
        """Return member `i`'s slots, packed, and its number of steps."""
        slots = {name: self._layout.member(flat, i).cpu().numpy() for name, flat in self._slot.items()}
        return {**slots, "steps": self._steps[i]}

    def _spread(self, values: Sequence[float]) -> float | Tensor:
        return self._layout.spread(values, self._parameters)

    def _hyper(self, value: Callable[[Settings], float]) -> float | Tensor:
        """Return a function of each member's settings as an operand."""
        return self._spread([value(settings) for settings in self._settings])

    def _join_slot(self, name: str, states: Sequence[Mapping[str, Any]]) -> Tensor:
        """Return a flat buffer of the members' earlier slots, zero where there is none."""
        zeros = self._parameters.new_zeros(self._layout.n_parameters)
        return self._layout.join(
            [torch.as_tensor(state[name]).to(zeros) if name in state else zeros for state in states]
        )


class SGD(Optimizer):
    """Gradient descent with (Nesterov) momentum, `v <- momentum v - rate g`, then `w <- w + v`.

    Nesterov looks one step ahead: `w <- w + momentum v - rate g` with the new `v` (Sutskever et al., 2013).
    """

    slots = ("velocity",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._momentum = self._hyper(lambda s: s.momentum)
        # w <- w + look v - take rate g, where (look, take) is (momentum, 1) for Nesterov and (1, 0) without.
        self._look = self._hyper(lambda s: s.momentum if s.nesterovs_momentum else 1.0)
        self._take = self._hyper(lambda s: 1.0 if s.nesterovs_momentum else 0.0)

    def step(self) -> None:
        velocity, scratch = self._slot["velocity"], self._scratch
        pull = self._gradient.mul_(self._rate)
        velocity.mul_(self._momentum).sub_(pull)
        self._parameters.add_(torch.mul(velocity, self._look, out=scratch)).sub_(pull.mul_(self._take))


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2014), with the bias corrections folded into the rate as in section 2 of the paper.

    `w <- w - rate sqrt(1 - beta_2**t) / (1 - beta_1**t) m / (sqrt(v) + epsilon)`.
    """

    slots = ("first_moment", "second_moment")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._beta_1, self._beta_2 = self._hyper(lambda s: s.beta_1), self._hyper(lambda s: s.beta_2)
        self._rest_1, self._rest_2 = self._hyper(lambda s: 1 - s.beta_1), self._hyper(lambda s: 1 - s.beta_2)
        self._epsilon = self._hyper(lambda s: s.epsilon)

    def step(self) -> None:
        self._steps = [t + 1 for t in self._steps]
        m, v, g, scratch = self._slot["first_moment"], self._slot["second_moment"], self._gradient, self._scratch
        m.mul_(self._beta_1).add_(torch.mul(g, self._rest_1, out=scratch))
        torch.mul(g, g, out=scratch)
        v.mul_(self._beta_2).add_(scratch.mul_(self._rest_2))
        torch.sqrt(v, out=scratch)
        torch.div(m, scratch.add_(self._epsilon), out=scratch)
        corrections = [
            (1 - s.beta_2**t) ** 0.5 / (1 - s.beta_1**t) for s, t in zip(self._settings, self._steps, strict=True)
        ]
        self._parameters.sub_(scratch.mul_(self._rate).mul_(self._spread(corrections)))


class FusedAdam(Adam):
    """The same rule as one kernel, for members that agree in betas, epsilon and number of steps.

    The kernel is private to PyTorch: `torch.optim.Adam(fused=True)` calls it too, but costs several times as much
    around it.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._step_tensor = self._parameters.new_zeros((), dtype=torch.float32)
        moments = [[self._slot[name]] for name in self.slots]
        self._operands = ([self._gradient], *moments, [], [self._step_tensor])

    def step(self) -> None:
        if isinstance(self._rate, Tensor):
            # The kernel knows one rate: with rate 1 from zero it leaves what the rates then multiply.
            self._move(self._scratch.zero_(), 1.0)
            self._parameters.addcmul_(self._scratch, self._rate)
        else:
            self._move(self._parameters, self._rate)

    def _move(self, values: Tensor, rate: float) -> None:
        """Subtract the rule's step from `values`."""
        self._steps = [t + 1 for t in self._steps]
        settings, t = self._settings[0], self._steps[0]
        self._step_tensor.fill_(t)
        torch._fused_adam_(
            [values],
            *self._operands,
            lr=rate,
            beta1=settings.beta_1,
            beta2=settings.beta_2,
            weight_decay=0.0,
            # The kernel adds epsilon after correcting sqrt(v), the rule above before.
            eps=settings.epsilon / (1 - settings.beta_2**t) ** 0.5,
            amsgrad=False,
            maximize=False,
        )


def optimizer_class(
    settings: Sequence[Settings], states: Sequence[Mapping[str, Any]], has_fused_adam: bool
) -> type[Optimizer]:
    """Return the class that serves members with these settings and states."""
    if settings[0].solver == "sgd":
        return SGD
    rules = {(s.beta_1, s.beta_2, s.epsilon) for s in settings}
    in_step = len({state.get("steps", 0) for state in states}) == 1
    return FusedAdam if has_fused_adam and len(rules) == 1 and in_step else Adam
