"""What a kernel that compares densities at several values of one choice asks of a target."""

from __future__ import annotations

from ppl import Target, errors
from ppl.addresses import as_path
from ppl.program import DRAW, Path

from ..validation.objects import check_target
from .presence import presence_varies


def latent(target: Target, address: str | tuple[str, ...]) -> Path:
    """The address of one latent choice, as a path.

    Raises:
      AddressNotFound: there is no such choice.
      InvalidArgument: it is observed, or the address is that of several choices.
    """
    check_target(target)
    target.selection(address)  # names a choice, and no observed one
    path = as_path(address)
    if path not in target.sites:
        below = [p for p in target.latents if p[: len(path)] == path]
        raise errors.InvalidArgument(
            f"{errors.show(path)} is the address of a call, not of one choice.",
            where=(f"{errors.show(below[0])} at {target.sites[below[0]].source}", errors.caller()),
            given=errors.show(path),
            expected="one of: " + "; ".join(errors.show(p) for p in below),
            fix=f"name one choice: {below[0]}",
        )
    return path


def check_density_known(target: Target, path: Path) -> None:
    """Raise `InvalidArgument` unless the density can be compared at other values of a choice.

    It cannot if the model draws without addresses: the density of the state is an estimate,
    and making it again for the comparison would move the target (Andrieu and Roberts 2009).
    Nor if the choice decides which other choices there are.
    """
    site = target.sites[path]
    where = (f"{errors.show(path)} at {site.source}", errors.caller())
    program = target.model._prepare(target.args, {}).staged.program
    if DRAW in program.effects:
        raise errors.InvalidArgument(
            "The model draws without addresses, so that its density is only estimated.",
            where=where,
            given=f"a kernel that compares densities at several values of {errors.show(path)}",
            expected="a model all of whose randomness has addresses",
            fix="use mh, propose or metropolize, which keep the estimate of the state; or give "
            "the draws addresses",
        )
    if presence_varies(program, lambda other: other == path):
        raise errors.InvalidArgument(
            f"{errors.show(path)} decides which other choices there are.",
            where=where,
            given="a branch with other choices, taken by its value",
            expected="a choice that only changes densities",
            fix="use mh, or propose with a proposal that also makes those choices",
        )
