"""What a first look at a program shows of its finite choices: what is needed together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ppl import errors, quadrature
from ppl.sites import Site

from .finite import Finite, outcomes_of
from .several import Alike
from .tables import MOST, Couples, Lane, Plate, elements


def planned(sums: Finite, look: Callable[[Finite], Any]) -> tuple[Finite, Any]:
    """The sums by which `look` goes through, and its result.

    Elements of a choice are summed out one by one, but where they are needed together.

    Args:
      look: goes through the program, and is run for its shapes alone.

    Raises:
      CannotEnumerate: too many elements are needed together.
    """
    for path in sums.together:
        _check_few(sums.sites[path])
    while True:
        try:
            return sums, look(sums)
        except Couples as found:
            path = found.lane.name
            if path not in sums.places or path in sums.together or _too_many(found.lane):
                raise _coupled(found.lane) from None
            sums = replace(sums, together=sums.together | {path})
        except Alike as found:
            one, other = found.pair
            sums = replace(sums, alike={**sums.alike, other: one})


def _check_few(site: Site) -> None:
    each, shape = outcomes_of(site), quadrature.elements(site.distribution)
    if each is not None and shape is not None:
        lane = Lane(site.path, len(each), (Plate(site.path, math.prod(shape)),), site.source)
        if _too_many(lane):
            raise _coupled(lane)


def _too_many(lane: Lane) -> bool:
    return lane.size ** elements(lane) > MOST


def _coupled(lane: Lane) -> errors.CannotEnumerate:
    count = f"{lane.size}^{elements(lane)}"
    copies = any(plate.name[: len(lane.name)] != lane.name for plate in lane.plates)
    return errors.CannotEnumerate(
        "Many elements of a choice that is summed out are needed together.",
        where=(f"{errors.show(lane.name)} at {lane.source}", errors.caller()),
        given=f"{elements(lane)} elements with {lane.size} outcomes each, {count} together",
        expected="elements that are used one by one"
        if copies
        else f"at most {MOST} outcomes together, or elements that are used one by one",
        fix="make it one choice of an array, instead of one in each copy of a vmap"
        if copies
        else "let each element of what depends on it depend on one element; or leave it to a "
        "kernel",
    )
