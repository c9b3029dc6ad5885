"""Parameter groups by what a parameter is, momentum with its decay in place, and AdamW.

Ungrouped, a MindSpore optimizer decays every parameter but those with `gamma` or `beta` in their
name, biases too. The groups made here leave nothing to that rule.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops
from mindspore.nn.learning_rate_schedule import LearningRateSchedule

from src.optim.schedules import Schedule
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
    """Another schedule, times a factor, and 0 for the first `frozen_steps` updates."""

    def __init__(
        self, schedule: LearningRateSchedule, factor: float, frozen_steps: int = 0
    ) -> None:
        super().__init__()
        self.schedule = schedule
        self.factor = factor
        self.frozen_steps = frozen_steps

    def construct(self, step: Tensor) -> Tensor:
        rate = self.schedule(step) * self.factor
        if self.frozen_steps > 0:
            rate = rate * (step >= self.frozen_steps).astype(ms.float32)
        return rate


def parameter_groups(
    params: Iterable[Parameter],
    learning_rate: LearningRateSchedule | float,
    weight_decay: float,
    no_decay_on_norm_and_bias: bool = True,
    lr_factors: Mapping[str, float] | None = None,
    layer_decay: float = 1.0,
    frozen_backbone_epochs: int = 0,
    steps_per_epoch: int = 1,
) -> list[dict[str, Any]]:
    """Groups parameters by learning rate and weight decay, as a MindSpore optimizer takes them.

    Args:
        params: The network's trainable parameters.
        learning_rate: What the optimizer gets too; groups with a factor get it scaled.
        weight_decay: Of all groups that are decayed.
        no_decay_on_norm_and_bias: Leaves biases and the scale and shift of norms undecayed.
        lr_factors: Factors of the learning rate by kind (`KINDS`); those of all kinds of a
            parameter are multiplied, so a bias of the backbone gets both. 0 freezes.
        layer_decay: One more factor for the backbone, for each of its layers
            (`backbone_layers`) down to that of the parameter: d in the last layer, d² in the one
            before (Clark et al. 2020, ELECTRA; BEiT and ConvNeXt take it too). 1 leaves it out.
        frozen_backbone_epochs: The backbone's learning rate is 0 for so many epochs: its weights
            stay as they are, decay included. Its gradients are computed all the same, and the
            statistics of its batch norms go on (`src.models.freezing` stops both). So do AdamW's
            moments, without which its first updates would be some three times too large; `Momentum`
            drops the velocity that it has gathered, `nn.SGD` begins with it.
        steps_per_epoch: Updates an epoch.

    Returns:
        The groups and, last, the order of the network, in which the optimizer keeps its state.
    """
    params = list(params)
    factors = {kind: factor for kind, factor in (lr_factors or {}).items() if factor != 1}
    present = {kind for param in params for kind in kinds_of(param.name)}
    _check_factors(factors, present)
    _check_backbone_keys(layer_decay, frozen_backbone_epochs, "backbone" in present)
    layers = backbone_layers(params)
    depth = max(layers.values(), default=0)
    members: dict[tuple[float, bool, int], list[Parameter]] = {}
    for param in params:
        kinds = kinds_of(param.name)
        factor, frozen_steps = 1.0, 0
        if "backbone" in kinds:
            factor = layer_decay ** (depth + 1 - layers[param.name])
            frozen_steps = frozen_backbone_epochs * steps_per_epoch
        for kind in kinds & set(factors):
            factor *= factors[kind]
        decayed = not (no_decay_on_norm_and_bias and kinds & {"bias", "norm"})
        members.setdefault((factor, decayed, frozen_steps), []).append(param)
    groups: list[dict[str, Any]] = []
    # Two groups a layer would bury the other lines
    level = logging.INFO if layer_decay == 1 else logging.DEBUG
    for (factor, decayed, frozen_steps), group_params in members.items():
        decay = float(weight_decay) if decayed else 0.0
        group = {"params": group_params, "weight_decay": decay}
        if factor != 1 or frozen_steps:
            group["lr"] = _scaled(learning_rate, factor, frozen_steps)
        groups.append(group)
        counts = (len(group_params), factor, decay)
        log.log(level, "%d parameters: learning rate × %g, weight decay %g", *counts)
    if layer_decay != 1 and layers:
        rates = (layer_decay**depth, layer_decay)
        log.info("%d layers of the backbone: learning rate × %.3g … %.3g", depth, *rates)
    if frozen_backbone_epochs and layers:
        log.info("the backbone is frozen for %d steps", frozen_backbone_epochs * steps_per_epoch)
    return [*groups, {"order_params": params}]


def backbone_layers(params: Iterable[Parameter]) -> dict[str, int]:
    """The layer of each parameter of the backbone, by name; 1 is the first.

    A layer is a numbered cell (`layer1.0`, a residual block; `conv1.3`, a convolution of VGG) or,
    outside of these, a cell with weights of its own (`conv1`). What holds no weights but a norm's
    is of the layer before it. Layers are counted in the order of the parameters, which is that of
    computation in all our backbones, but for branches in parallel: one is counted after the other.
    """
    weights = [param for param in params if "backbone" in kinds_of(param.name)]
    cells = {param.name: _numbered_cell(param.name) for param in weights}
    weighted = {cells[param.name] for param in weights if param.ndim > 1}
    layers: dict[str, int] = {}
    layer, newest = 0, ""
    for name, cell in cells.items():
        if cell in weighted and cell != newest:
            layer, newest = layer + 1, cell
        layers[name] = layer
    return layers


def _numbered_cell(name: str) -> str:
    """`backbone.layer1.0.bn1.gamma` → `backbone.layer1.0`; `backbone.bn.gamma` → `backbone.bn`."""
    numbered = re.match(r".*?(\.(\w+_)?\d+)+(?=\.)", name)  # mindcv also has `features_3`
    return numbered[0] if numbered else name.rpartition(".")[0]


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


def _check_backbone_keys(layer_decay: float, frozen_epochs: int, present: bool) -> None:
    prefix = "optimizer.parameters"
    if not 0 < layer_decay <= 1:
        raise UserError(
            f"{prefix}.layer_decay={layer_decay}: expected a factor above 0 and at most 1, as 0.9"
        )
    if not frozen_epochs >= 0:
        raise UserError(
            f"{prefix}.frozen_backbone_epochs={frozen_epochs}: expected a number of epochs, 0 or "
            "more"
        )
    given = {"layer_decay": layer_decay != 1, "frozen_backbone_epochs": frozen_epochs != 0}
    for key in [key for key, value in given.items() if value and not present]:
        log.warning("%s.%s has no effect: no parameter of a backbone is trained", prefix, key)


def _scaled(
    learning_rate: LearningRateSchedule | float, factor: float, frozen_steps: int
) -> LearningRateSchedule | float:
    if frozen_steps and not isinstance(learning_rate, LearningRateSchedule):
        learning_rate = Schedule([learning_rate])
    if isinstance(learning_rate, LearningRateSchedule):
        return ScaledSchedule(learning_rate, factor, frozen_steps)
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
_keep = ops.MultitypeFuncGraph("keep")
_pick = ops.MultitypeFuncGraph("pick")


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


@_keep.register("Tensor", "Bool", "Tensor")
def _keep_velocity(share: Tensor, frozen_once: bool, velocity: Tensor) -> bool:
    if frozen_once:
        ops.assign(velocity, velocity * share)
    return frozen_once


@_pick.register("Tuple", "Number")
def _pick_rate(rates: tuple[Tensor, ...], index: int) -> Tensor:
    return rates[index]


class GroupRates(nn.Optimizer):
    """Optimizers whose groups have rates of their own, each computed once a step.

    MindSpore computes one for each parameter, in a loop whose rounds its compiler nests: HRNet with
    a factor took 17 GB and was not compiled after 14 minutes.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.is_group_lr and self.dynamic_lr:
            rates = list(dict.fromkeys(self.learning_rate))  # one a parameter before
            self.group_rates = nn.CellList(rates, auto_prefix=False)
            self.rate_indices = tuple(rates.index(rate) for rate in self.learning_rate)

    def get_lr(self) -> Tensor | tuple[Tensor, ...]:
        """The rate of the next update, or those of all parameters."""
        if not self.dynamic_lr:
            return self.learning_rate
        if not self.is_group_lr:
            return self.learning_rate(self.global_step).reshape(())
        rates: tuple[Tensor, ...] = ()
        for rate in self.group_rates:
            rates += (rate(self.global_step).reshape(()),)
        return self.hyper_map(ops.partial(_pick, rates), self.rate_indices)


class Momentum(GroupRates, nn.Momentum):
    """Momentum with weight decay in the gradient, in less memory than `nn.Momentum`.

    v = momentum · v + gradient + weight_decay · weight;  weight -= learning_rate · v

    The decay is added to v before it is scaled, not to the gradients, of which MindSpore would keep
    a second copy: half a gigabyte for the FCN on VGG-16.

    While a rate is frozen at 0 (`ScaledSchedule`) its v is gathered, but dropped when that ends:
    the first updates are as small as at the start of any training.
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
        # The rates are one a parameter here, in the order of the network
        rates = self.learning_rate if self.is_group_lr else ()
        frozen_steps = [getattr(rate, "frozen_steps", 0) for rate in rates]
        self.frozen_steps = max(frozen_steps, default=0)
        self.frozen_once = tuple(steps > 0 for steps in frozen_steps)

    def decay_weight(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Drops velocities and adds the decay to them; `nn.Momentum` calls this first."""
        if not self.has_velocity:
            return super().decay_weight(gradients)
        if self.frozen_steps > 0:
            share = (self.global_step != self.frozen_steps).astype(ms.float32).reshape(())
            self.hyper_map(ops.partial(_keep, share), self.frozen_once, self.moments)
        if self.exec_weight_decay:
            decays = self.get_weight_decay()
            accumulate = ops.partial(_accumulate, self.momentum)
            self.hyper_map(accumulate, decays, self.decay_flags, self.moments, self.parameters)
        return gradients


class SGD(GroupRates, nn.SGD):
    """`nn.SGD`, whose momentum may be Nesterov's."""

    def __init__(
        self,
        params: list[Parameter] | list[dict[str, Any]],
        learning_rate: LearningRateSchedule | float = 0.1,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, learning_rate, momentum, dampening, weight_decay, nesterov)


class AdamW(GroupRates, nn.Adam):
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
