"""A sweep's options: which are fixed and which are searched, in Hydra's own syntax."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from rlhf_lightning.errors import UserError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass
class Space:
    """The options of a sweep's jobs.

    Attributes:
        fixed: option to its override as it was given, the same in every job.
        searched: option to what its values are drawn from.
    """

    fixed: dict[str, str] = field(default_factory=dict)
    searched: dict[str, BaseDistribution] = field(default_factory=dict)

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """A job's overrides, with these values of the searched options."""
        return [*self.fixed.values(), *(f"{name}={words(values[name])}" for name in self.searched)]

    def ends(self) -> dict[str, list[str]]:
        """Each searched option's overrides with its least and its greatest value, or with each of its choices.

        The ends of an interval are hardly ever drawn, and needn't be allowed: of it two numbers just within are.
        """
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        found = {}
        for name, drawn in self.searched.items():
            if isinstance(drawn, CategoricalDistribution):
                values = list(drawn.choices)
            else:
                low, high = drawn.low, drawn.high  # type: ignore[attr-defined]
                within = 1e-6 * (high - low) if isinstance(drawn, FloatDistribution) and drawn.step is None else 0
                values = [low + within, high - within]
            found[name] = [f"{name}={words(value)}" for value in dict.fromkeys(values)]
        return found

    def describe(self) -> dict[str, str]:
        """The searched options in words, to be compared with those of another sweep."""
        return {name: repr(distribution) for name, distribution in self.searched.items()}

    def grid(self) -> list[dict[str, Any]]:
        """Every combination of the searched options' values, the last option's changing the fastest.

        Raises:
            UserError: for an interval, which has no number of values.
        """
        names = list(self.searched)
        return [
            dict(zip(names, values, strict=True))
            for values in itertools.product(*(_values(name, self.searched[name]) for name in names))
        ]


def read_space(overrides: Sequence[str], parser: OverridesParser | None = None) -> Space:
    """Sort overrides into fixed and searched ones; of two of the same option the later one counts.

    ``a,b`` and ``choice(a,b)`` are choices, ``range(1,9,2)`` steps (without the end), ``interval(0.01,0.1)`` any
    number in between, ``int(interval(1,9))`` any whole one; ``tag(log,interval(...))`` draws evenly in the logarithm.

    Args:
        overrides: in Hydra's syntax.
        parser: one that knows the config groups, for ``task=glob(*)``.

    Raises:
        UserError: for a range without values, or the logarithm of what is not above 0.
        OverrideParseException: for what is no override.
    """
    space = Space()
    for override in (parser or OverridesParser.create()).parse_overrides(list(overrides)):
        name = override.get_key_element()
        space.fixed.pop(name, None)
        space.searched.pop(name, None)
        if override.is_sweep_override():
            space.searched[name] = _distribution(name, override)
        else:
            assert override.input_line is not None
            space.fixed[name] = override.input_line
    return space


def words(value: Any) -> str:
    """A value as an override has it; choices are texts in that form already."""
    return value if isinstance(value, str) else repr(value)


def _distribution(name: str, override: Override) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution

    sweep: Any = override.value()
    try:
        if isinstance(sweep, IntervalSweep):
            assert sweep.start is not None
            assert sweep.end is not None
            return _numbers(sweep.start, sweep.end, None, "log" in sweep.tags)
        if isinstance(sweep, RangeSweep):
            values = list(sweep.range())
            if not values:
                raise ValueError("it has no values")
            return _numbers(min(values), max(values), abs(sweep.step), "log" in sweep.tags)
        if isinstance(sweep, ChoiceSweep):
            sweep.shuffle = False  # the order of the choices says nothing to a sampler, but has to be that of a resume
        return CategoricalDistribution(list(dict.fromkeys(override.sweep_string_iterator())))
    except ValueError as error:
        raise UserError(f"{override.input_line}: {name} can't be drawn from that: {error}") from error


def _numbers(low: float, high: float, step: float | None, log: bool) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution

    if all(isinstance(number, int) for number in (low, high, step or 1)):
        return IntDistribution(int(low), int(high), log=log, step=int(step or 1))
    if step is None:
        return FloatDistribution(float(low), float(high), log=log)
    low, high, step = (float(f"{number:.12g}") for number in (low, high, step))  # sums of 0.1 are not what they seem
    return FloatDistribution(low, high, log=log, step=step)


def _values(name: str, distribution: BaseDistribution) -> Sequence[Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    assert isinstance(distribution, FloatDistribution)
    if distribution.step is None:
        raise UserError(f"{name}: a grid needs single values, as {name}=0.1,0.2 or {name}=range(1,9); not an interval")
    steps = round((distribution.high - distribution.low) / distribution.step)
    return [float(f"{distribution.low + i * distribution.step:.12g}") for i in range(steps + 1)]
