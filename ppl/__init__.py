"""giry's language: random programs and generative functions on JAX."""

from ._compiler import guard as _guard
from ._siblings import check as _check
from .addresses import At, Masked, Selection, everything, select
from .causal import do, twin
from .combinators import mask, mix, repeat, scan, switch, vmap
from .errors import PPLError
from .expectation import expectation
from .generative import Call, GenerativeFunction, Trace, gen
from .graph import Graph, dependencies
from .imported import target_from_numpyro
from .integrate import Integral, integrate
from .interop import from_numpyro
from .language import factor, observe, sample
from .law import Law, law, paths
from .randomness import draw, seed
from .sites import Site
from .strategies import (
    disarm,
    enumerate_,
    gumbel_softmax,
    learned,
    leave_one_out,
    measure_valued,
    moving_average,
    rebar,
    reinforce,
    relax,
    reparam,
    straight_through,
    without_replacement,
)
from .tape import at_boundary, record, replay
from .target import Target
from .unfold import extend, unfold

_check(__name__)
_guard()

__all__ = [
    "At",
    "Call",
    "GenerativeFunction",
    "Graph",
    "Integral",
    "Law",
    "Masked",
    "PPLError",
    "Selection",
    "Site",
    "Target",
    "Trace",
    "at_boundary",
    "dependencies",
    "disarm",
    "do",
    "draw",
    "enumerate_",
    "everything",
    "expectation",
    "extend",
    "factor",
    "from_numpyro",
    "gen",
    "gumbel_softmax",
    "integrate",
    "law",
    "learned",
    "leave_one_out",
    "mask",
    "measure_valued",
    "mix",
    "moving_average",
    "observe",
    "paths",
    "rebar",
    "record",
    "reinforce",
    "relax",
    "reparam",
    "repeat",
    "replay",
    "sample",
    "scan",
    "seed",
    "select",
    "straight_through",
    "switch",
    "target_from_numpyro",
    "twin",
    "unfold",
    "vmap",
    "without_replacement",
]
