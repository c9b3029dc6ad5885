"""Parameter groups by what a parameter is, momentum with its decay in place, and AdamW.

Ungrouped, a MindSpore optimizer decays every parameter but those with `gamma` or `beta` in their
name, biases too. The groups made here leave nothing to that rule.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from mindspore import Parameter, Tensor, nn, ops
from mindspore.nn.learning_rate_schedule import LearningRateSchedule

from src.utils.console import stderr_to_log
from src.utils.errors import UserError, nearest

log = logging.getLogger(__name__)

KINDS = ("bias", "norm", "backbone", "score", "upsampling", "auxiliary")


def kinds_of(name: str) -> set[str]:
    """Those of `KINDS` that a parameter is of, by its name in the network."""
    *path, leaf = name.split(".")
    tests = {
        "bias": leaf == "bias",
        "norm": leaf in ("gamma", "beta"),
        "backbone": "backbone" in path,
        "score": any(part.startswith("score_") for part in path),
        "upsampling": any(part.startswith("upscore") for part in path),
        "auxiliary": "auxiliary" in path,
    }
    return {kind for kind in KINDS if tests[kind]}


class ScaledSchedule(LearningRateSchedule):
    """Another schedule, times a factor."""

    def __init__(self, schedule: LearningRateSchedule, factor: float) -> None:
        super().__init__()
        self.schedule = schedule
        self.factor = factor

    def construct(self, step: Tensor) -> Tensor:
        return self.schedule(step) * self.factor


def parameter_groups(
    params: Iterable[Parameter],
    learning_rate: LearningRateSchedule | float,
    weight_decay: float,
    no_decay_on_norm_and_bias: bool = True,
    lr_factors: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Groups parameters by learning rate and weight decay, as a MindSpore optimizer takes them.

    Args:
        params: The network's trainable parameters.
        learning_rate: What the optimizer gets too; groups with a factor get it scaled.
        weight_decay: Of all groups that are decayed.
        no_decay_on_norm_and_bias: Leaves biases and the scale and shift of norms undecayed.
        lr_factors: Factors of the learning rate by kind (`KINDS`); those of all kinds of a
            parameter are multiplied, so a bias of the backbone gets both. 0 freezes.

    Returns:
        The groups and, last, the order of the network, in which the optimizer keeps its state.
    """
    params = list(params)
    factors = {kind: factor for kind, factor in (lr_factors or {}).items() if factor != 1}
    _check_factors(factors, {kind for param in params for kind in kinds_of(param.name)})
    members: dict[tuple[float, bool], list[Parameter]] = {}
    for param in params:
        kinds = kinds_of(param.name)
        factor = 1.0
        for kind in kinds & set(factors):
            factor *= factors[kind]
        decayed = not (no_decay_on_norm_and_bias and kinds & {"bias", "norm"})
        members.setdefault((factor, decayed), []).append(param)
    groups: list[dict[str, Any]] = []
    for (factor, decayed), group_params in members.items():
        decay = float(weight_decay) if decayed else 0.0
        group = {"params": group_params, "weight_decay": decay}
        if factor != 1:
            group["lr"] = _scaled(learning_rate, factor)
        groups.append(group)
        log.info(
            "%d parameters: learning rate × %g, weight decay %g", len(group_params), factor, decay
        )
    return [*groups, {"order_params": params}]


def _check_factors(factors: Mapping[str, float], present: set[str]) -> None:
    for kind, factor in factors.items():
        key = f"optimizer.parameters.lr_factors.{kind}"
        if kind not in KINDS:
            hint = nearest(kind, KINDS) or f"; there are {', '.join(KINDS)}"
            raise UserError(f"{key}: unknown kind of parameter{hint}")
        if not factor >= 0:
            raise UserError(f"{key}={factor}: expected a factor of at least 0, as 2")
        if kind not in present:
            log.warning("%s=%g has no effect: the network has no such parameter", key, factor)


def _scaled(
    learning_rate: LearningRateSchedule | float, factor: float
) -> LearningRateSchedule | float:
    if isinstance(learning_rate, LearningRateSchedule):
        return ScaledSchedule(learning_rate, factor)
    return learning_rate * factor


def _grouped(params: list[Parameter] | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Parameters as one group, so that each has a weight decay of its own; groups as they are."""
    params = list(params)
    return params if params and isinstance(params[0], dict) else [{"params": params}]


# Mapped, not looped over: MindSpore's compiler nests a loop's rounds, at most 1000 deep, which
# ResNet-101 has parameters enough for
_descend = ops.ApplyGradientDescent()
_accumulate = ops.MultitypeFuncGraph("accumulate")
_shrink = ops.MultitypeFuncGraph("shrink")


@_accumulate.register("Tensor", "Tensor", "Bool", "Tensor", "Tensor")
def _accumulate_decay(
    momentum: Tensor, decay: Tensor, decayed: bool, velocity: Tensor, weight: Tensor
) -> bool:
    if decayed:
        _descend(velocity, -decay / momentum, weight)  # velocity -= factor · weight
    return decayed


@_shrink.register("Tensor", "Tensor", "Bool", "Tensor")
def _shrink_weight(rate: Tensor, decay: Tensor, decayed: bool, weight: Tensor) -> bool:
    if decayed:
        ops.assign(weight, weight * (1 - rate * decay))
    return decayed


class Momentum(nn.Momentum):
    """Momentum with weight decay in the gradient, in less memory than `nn.Momentum`.

    v = momentum · v + gradient + weight_decay · weight;  weight -= learning_rate · v

    The decay is added to v before it is scaled, not to the gradients, of which MindSpore would keep
    a second copy: half a gigabyte for the FCN on VGG-16.
    """

    def __init__(
        self,
        params: list[Parameter] | list[dict[str, Any]],
        learning_rate: LearningRateSchedule | float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        # Without its `use_nesterov`, which has no effect on the CPU; that of `nn.SGD` has
        super().__init__(_grouped(params), learning_rate, momentum, weight_decay)
        self.has_velocity = momentum > 0

    def decay_weight(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Adds the decay to the velocities; `nn.Momentum` calls this first."""
        if not self.has_velocity:
            return super().decay_weight(gradients)
        if self.exec_weight_decay:
            decays = self.get_weight_decay()
            accumulate = ops.partial(_accumulate, self.momentum)
            self.hyper_map(accumulate, decays, self.decay_flags, self.moments, self.parameters)
        return gradients


class AdamW(nn.Adam):
    """Adam with bias correction and decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).

    The epsilon is added before the bias correction of the second moment (end of section 2 of Kingma
    & Ba 2015), where PyTorch adds it after.

    Args:
        params: Parameters or groups of them.
        learning_rate: Its product with `weight_decay` is what a weight loses in a step.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        eps: Keeps the division finite.
        weight_decay: Of the groups that name none.
    """

    def __init__(
        self,
        params: list[Parameter] | list[dict[str, Any]],
        learning_rate: LearningRateSchedule | float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        with stderr_to_log():  # a warning that some other optimizer is deprecated
            super().__init__(
                _grouped(params), learning_rate, beta1, beta2, eps, weight_decay=weight_decay
            )

    def decay_weight(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Shrinks the weights, where `nn.Adam`, which calls this first, adds to the gradients."""
        if self.exec_weight_decay:
            rates, decays = self.get_lr(), self.get_weight_decay()
            if self.is_group_lr:
                self.hyper_map(_shrink, rates, decays, self.decay_flags, self.parameters)
            else:
                shrink = ops.partial(_shrink, rates)
                self.hyper_map(shrink, decays, self.decay_flags, self.parameters)
        return gradients
