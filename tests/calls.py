"""One valid call of every public function: what the sweeps over wrong arguments start from.

`CALLS` has a `Call` by the function's name: its arguments by name, made when they are needed.
`random` marks random programs, which are traced, not run; what is `heavy` compiles when it
succeeds.
"""

import functools
import inspect
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import inference
from inference import (
    Draws,
    Move,
    Weighted,
    auxiliary_marginal,
    by_importance,
    filter_series,
    importance,
    mh,
    multinomial,
    particle_filter,
    random_walk,
    start,
    sum_out,
    unit,
)
from inference.smc.annealing import on_latents
from ppl import Target, gen, sample, seed, vmap

KEY = jax.random.key(0)


@gen
def line(x):
    slope = sample("slope", dist.Normal(0.0, 2.0))
    sample("y", dist.Normal(slope * x, 1.0))


@gen
def coin():
    fair = sample("fair", dist.Bernoulli(0.5))
    sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))


@gen
def guess(p):
    sample("fair", dist.Bernoulli(p))


@gen
def hidden(p):
    u = sample("u", dist.Bernoulli(p))
    sample("fair", dist.Bernoulli(0.25 + 0.5 * u))


@gen
def unhide(x, p):
    sample("u", dist.Bernoulli(0.25 + 0.5 * x["fair"]))


def one(p):
    return jnp.asarray(1.0)


@gen
def walk():
    scale = sample("scale", dist.HalfNormal(1.0))

    def step(z, _):
        z = sample("z", dist.Normal(z, scale))
        sample("y", dist.Normal(z, 1.0))
        return z, None

    jax.lax.scan(step, 0.0, None, length=3)


@gen
def step_model(z, _):
    z = sample("z", dist.Normal(z, 1.0))
    sample("y", dist.Normal(z, 1.0))
    return z, None


@gen
def coins():
    sample("each", vmap(toss)(jnp.array([0.5, 0.25])))


@gen
def toss(p):
    fair = sample("fair", dist.Bernoulli(p))
    sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))


X = jnp.arange(3.0)
LINE = Target(line, (X,), {"y": jnp.array([0.6, 2.5, 3.2])})
CHEAP = Target(line, (X,), {"y": jnp.array([0.5, 2.5, 3.0])})
COIN = Target(coin, (), {"heads": 1})
YS = {"y": jnp.array([0.5, 1.0, 2.0])}
WALK = Target(walk, (), YS)
COINS = Target(coins, (), {"each": {"heads": jnp.array([1, 0])}})
SERIES = Target(walk, (), {**YS, "scale": 1.0})


def by_filter(rest):
    return filter_series(rest, "z", 4)


@functools.cache
def scales():
    return auxiliary_marginal(WALK, "scale", by_filter)


@functools.cache
def filtered():
    run = seed(lambda: particle_filter(step_model, 0.0, YS, 4, scheme=multinomial, history=True))
    return run(KEY)


@functools.cache
def particles():
    return seed(lambda: importance(COIN, 4)(unit()))(KEY)


@functools.cache
def fitted():
    return inference.fit(KEY, inference.elbo(COIN, guess), 0.5, steps=2)


@functools.cache
def draws():
    made = np.random.default_rng(0).normal(size=(2, 30))
    return Draws({"slope": made}, target=LINE)


SHIFT = gen(lambda latents: sample("by", dist.Normal(0.0, 1.0)))
MOVE = Move(SHIFT, lambda x, u: ({"slope": x["slope"] + u["by"]}, {"by": -u["by"]}))
EMPTY = gen(lambda latents: None)
NEWBORN = gen(lambda latents: sample("x", dist.Bernoulli(0.5)))
SHARE = gen(lambda row: sample("share", dist.Uniform(0.0, 1.0)))


@dataclass(frozen=True)
class Call:
    function: object
    make: object
    random: bool = False
    heavy: bool = False

    def arguments(self):
        """The arguments by name; those of `*args` are a tuple."""
        return self.make()

    def run(self, arguments):
        """The function called with these arguments."""
        arguments = dict(arguments)
        signature = inspect.signature(self.function)
        args, kwargs = [], {}
        for name, parameter in signature.parameters.items():
            if name not in arguments:
                continue
            value = arguments[name]
            if parameter.kind == parameter.VAR_POSITIONAL:
                args += value
            elif parameter.kind == parameter.POSITIONAL_ONLY:
                args.append(value)
            else:
                kwargs[name] = value
        call = lambda: self.function(*args, **kwargs)  # noqa: E731
        return jax.eval_shape(seed(call), KEY) if self.random else call()


CALLS = {}


def call(name, /, random=False, heavy=False, **arguments):
    """Register the valid call of a public function of `inference`; values are made by lambdas."""
    make = lambda: {k: v() for k, v in arguments.items()}  # noqa: E731
    CALLS[name] = Call(getattr(inference, name), make, random, heavy)


def const(value):
    return lambda: value


LINE_, COIN_ = const(LINE), const(COIN)
MAKE = const(random_walk)

call("mh", target=COIN_, selection=const("fair"))
call("gibbs", target=COIN_, address=const("fair"))
call(
    "hmc",
    target=LINE_,
    selection=const(None),
    steps=const(2),
    step_size=const(0.1),
    dense=const(True),
    target_accept=const(0.8),
)
call(
    "nuts",
    target=LINE_,
    selection=const("slope"),
    step_size=const(0.1),
    dense=const(False),
    target_accept=const(0.8),
    max_depth=const(5),
    unroll=const(False),
)
call(
    "mala",
    target=LINE_,
    selection=const("slope"),
    step_size=const(0.1),
    dense=const(False),
    target_accept=const(0.5),
)
call(
    "random_walk",
    target=LINE_,
    selection=const("slope"),
    step_size=const(0.1),
    dense=const(False),
    target_accept=const(0.4),
)
call(
    "slice_sample",
    target=LINE_,
    selection=const("slope"),
    along=const("direction"),
    width=const(2.0),
    most=const(5),
)
call("elliptical_slice", target=LINE_, selection=const("slope"))
call("stretch", target=LINE_, members=const(4), selection=const("slope"), scale=const(2.0))
call(
    "sgld",
    target=LINE_,
    estimate=lambda: LINE.log_density,
    selection=const("slope"),
    step_size=const(0.1),
)
call(
    "sghmc",
    target=LINE_,
    estimate=lambda: LINE.log_density,
    selection=const("slope"),
    steps=const(2),
    step_size=const(0.1),
    friction=const(0.1),
    noise=const(0.0),
)
call("minibatch", batch=const(lambda i: LINE), total=const(3), size=const(2), local=const(None))
call(
    "propose", target=LINE_, proposal=lambda: gen(lambda x: sample("slope", dist.Normal(0.0, 1.0)))
)
call("metropolize", move=const(MOVE), target=LINE_, check=const(False), name=const("move"))
call(
    "mhg",
    target=LINE_,
    proposal=const(SHIFT),
    involution=const(MOVE.involution),
    check=const(False),
    name=const("mhg"),
)
call("weigh", move=const(MOVE), source=LINE_, target=const(CHEAP))
call(
    "mh_each",
    target=const(COINS),
    address=const(("each", "fair")),
    proposal=const(None),
)
call("cycle", kernels=lambda: (random_walk(LINE), mh(LINE, "slope")))
call("mixture", kernels=lambda: [random_walk(LINE), mh(LINE, "slope")], weights=const([0.5, 0.5]))
call("iterate", kernel=lambda: mh(LINE, "slope"), n=const(2))
call("delayed_acceptance", kernel=lambda: mh(CHEAP, "slope"), cheap=const(CHEAP), target=LINE_)
call(
    "parallel_tempering",
    target=LINE_,
    make_kernel=const(lambda t: mh(t, "slope")),
    powers=const(3),
    of=const("likelihood"),
    adapt=const(True),
)
call("choose", moves=const([MOVE]), weights=const(lambda x: jnp.ones(1)))
call("birth_death", number=const("k"), parts=const("x"), newborn=const(NEWBORN), least=const(0))
call(
    "split_merge",
    number=const("k"),
    parts=const("x"),
    auxiliary=const(SHARE),
    split=const(lambda row, u: (row, row)),
    merge=const(lambda a, b: (a, b)),
    least=const(1),
)
call("one_row", number=const("k"), parts=const("x"), move=const(MOVE))
call("Move", proposal=const(SHIFT), involution=const(MOVE.involution), log_det=const(None))
call("as_kernel", kernel=lambda: mh(LINE, "slope"))
call("lift", kernel=lambda: mh(LINE, "slope"))
call("start", target=LINE_)
call("importance", target=LINE_, n=const(4))
call("spawn", n=const(4))
call("each", step=lambda: start(LINE))
call("then", steps=lambda: (start(LINE),))
call("within", step=const(lambda s: s))
call("islands", k=const(2), n=const(3))
call("spread", mesh=lambda: jax.make_mesh((1,), ("islands",)))
call(
    "merged", weighted=lambda: Weighted(Weighted(jnp.ones((2, 3)), jnp.zeros((2, 3))), jnp.zeros(2))
)
call("collapse", weighted=particles, random=True)
call("log_evidence", weighted=particles)
call("effective_sample_size", log_weights=const(jnp.zeros(3)))
call("resample", weighted=particles, scheme=const(multinomial), random=True)
for _scheme in ("systematic", "stratified", "multinomial", "residual", "ssp", "killing"):
    call(_scheme, weights=const(jnp.full(4, 0.25)), random=True)
call("when_ess_below", fraction=const(0.5), scheme=const(multinomial))
call("waste_free", kernel=lambda: mh(LINE, "slope"), chains=const(2), scheme=const(multinomial))
call("temper", target=LINE_, power=const(0.5), of=const("likelihood"))
call("retarget", source=LINE_, target=const(CHEAP))
call(
    "annealed",
    target=LINE_,
    n=const(4),
    kernel=MAKE,
    powers=const(3),
    threshold=const(0.5),
    scheme=const(multinomial),
    chains=const(2),
    parameters=const(None),
)
call("reverse_annealed", target=LINE_, kernel=MAKE, powers=const(3), parameters=const(None))
call(
    "adaptive_annealing",
    target=LINE_,
    n=const(4),
    kernel=MAKE,
    fraction=const(0.5),
    max_stages=const(3),
    tune=lambda: inference.particle_metric,
    threshold=const(0.5),
    scheme=const(multinomial),
    chains=const(2),
    random=True,
)
call(
    "nested_sampling",
    target=LINE_,
    n=const(4),
    kernel=MAKE,
    batch=const(1),
    tune=lambda: inference.particle_metric,
    fraction=const(0.1),
    max_iterations=const(3),
    random=True,
)
call("by_importance", n=const(4), proposal=const(None))
call("by_filter", address=const("z"), n=const(4), threshold=const(0.5))
call("by_annealing", n=const(4), kernel=MAKE, powers=const(3), reverse=MAKE, threshold=const(0.5))
call("normalize", target=COIN_, using=lambda: by_importance(3))
call("elbo", target=COIN_, guide=const(guess), landing=const(False), analytic=const(True))
call("iwelbo", target=COIN_, guide=const(guess), particles=const(3), doubly=const(False))
for _name in ("wake", "wake_p", "vimco"):
    call(_name, target=COIN_, guide=const(guess), particles=const(3))
for _name in ("mean_field", "full_rank", "structured"):
    call(_name, target=LINE_, start=const(None), scale=const(0.1))
call("low_rank", target=LINE_, rank=const(1), start=const(None), scale=const(0.1))
call("laplace", target=LINE_, start=const(None), heavy=True)
call(
    "flow",
    key=const(KEY),
    target=LINE_,
    start=const(None),
    build=const(None),
    layers=const(1),
    width=const(2),
    scale=const(0.1),
    heavy=True,
)
call(
    "pathfinder",
    key=const(KEY),
    target=LINE_,
    paths=const(1),
    draws=const(30),
    steps=const(3),
    history=const(2),
    heavy=True,
)
call(
    "vsmc",
    model=const(step_model),
    init=const(0.0),
    observations=const(YS),
    particles=const(2),
    proposal=const(None),
    xs=const(None),
    resampling=const("score"),
)
call("sleep", target=COIN_, guide=const(guess))
for _name in ("forward_kl", "symmetric_kl"):
    call(_name, target=COIN_, guide=const(guess), using=const(3))
call("renyi", target=COIN_, guide=const(guess), alpha=const(0.5), particles=const(3))
call("f_divergence", target=COIN_, guide=const(guess), f=const("chi_square"))
call("hvi", target=COIN_, guide=const(hidden), reverse=const(unhide))
call("iwhvi", target=COIN_, guide=const(hidden), reverse=const(unhide), samples=const(2))
call(
    "diwhvi",
    target=COIN_,
    guide=const(hidden),
    reverse=const(unhide),
    samples=const(2),
    particles=const(2),
)
call(
    "mmd",
    first=const(one),
    second=const(np.zeros((3, 1))),
    kernel=const(lambda a, b: 1.0),
    draws=const(2),
)
call("energy_distance", first=const(one), second=const(np.zeros((3, 1))), draws=const(2))
call("score_matching", log_density=const(lambda y, p: -p * jnp.sum(y**2)), slices=const(None))
call(
    "fit",
    key=const(KEY),
    objective=lambda: inference.elbo(COIN, guess),
    parameters=const(0.5),
    optimizer=const(None),
    data=const(()),
    steps=const(2),
    samples=const(1),
    strategies=const(None),
    tolerance=const(None),
    average=const(True),
    progress=const(False),
    checkpoint=const(None),
    heavy=True,
)
call("plot_fit", found=fitted, heavy=True)
call("marginalize", model=const(coin), keep=const("heads"), using=lambda: by_importance(3))
call("marginal", target=const(WALK), keep=const("scale"), using=const(by_filter))
call("auxiliary_marginal", target=const(WALK), keep=const("scale"), using=const(by_filter))
call("correlated", target=scales, how=const("scale"), correlation=const(0.9))
call(
    "filter_series",
    target=const(SERIES),
    address=const("z"),
    n=const(4),
    scheme=const(multinomial),
    threshold=const(0.5),
    order=const(lambda carry: carry[0]),
)
call(
    "filter_beliefs",
    target=const(SERIES),
    address=const("z"),
    summed=const("z"),
    n=const(4),
    scheme=const(multinomial),
    threshold=const(0.5),
    order=const(None),
)
call(
    "smc2",
    target=const(WALK),
    address=const("z"),
    n=const(4),
    inner=const(3),
    make_kernel=const(lambda t: mh(t, "scale")),
    moves=const((1,)),
    scheme=const(multinomial),
    threshold=const(0.5),
)
call(
    "particle_gibbs",
    target=const(WALK),
    address=const("z"),
    n=const(4),
    ancestor_sampling=const(True),
    threshold=const(0.5),
)
call(
    "particle_filter",
    model=const(step_model),
    init=const(0.0),
    observations=const(YS),
    n=const(4),
    xs=const(None),
    proposal=const(None),
    lookahead=const(None),
    scheme=const(multinomial),
    threshold=const(0.5),
    order=const(None),
    record=const(lambda s: None),
    history=const(False),
    random=True,
)
call(
    "conditional_filter",
    model=const(step_model),
    init=const(0.0),
    observations=const(YS),
    path=const({"z": jnp.zeros(3)}),
    n=const(4),
    xs=const(None),
    proposal=const(None),
    ancestor_sampling=const(True),
    threshold=const(0.5),
    random=True,
)
call(
    "advance",
    model=const(step_model),
    observed=const({"y": 1.0}),
    x=const(None),
    proposal=const(None),
    value=const(lambda trace: trace.retval[0]),
)
call(
    "backward_sample",
    model=const(step_model),
    filtered=filtered,
    m=const(2),
    xs=const(None),
    random=True,
)
call("genealogy", filtered=filtered)
call("fixed_lag", filtered=filtered, lag=const(1))
call("filter_error", filtered=filtered, f=const(lambda z: z), lag=const(1))
call("relative_variance", filtered=filtered, f=const(lambda z: z))
call("log_evidence_error", found=filtered)
call("degeneracy", found=filtered, observations=const(YS), floor=const(0.01))
call("over", make=const(lambda row: lambda s: s), data=const(jnp.zeros(3)))
call(
    "recorded",
    make=const(lambda row: lambda s: s),
    data=const(jnp.zeros(3)),
    record=const(lambda s: None),
    carry=const(lambda s: s),
)
call("reweight", log_potential=const(lambda x: 0.0))
call("sort_by", key=const(lambda x: x))
call(
    "translate",
    source=LINE_,
    target=const(CHEAP),
    forward=const(None),
    backward=const(None),
    there=const(lambda x, u: (x, u)),
    back=const(None),
)
call("sum_out", model=const(coin), selection=const("fair"), missing=const(None), along=const(None))
quiet = sum_out(coin, "fair")
for _name in ("restore", "most_likely", "beliefs"):
    call(_name, quiet=const(quiet), trace=lambda: quiet.generate({"heads": 1})[0], random=True)
call("rao_blackwell", model=const(step_model), summed=const("z"), init=const(0.0), x=const(None))
call(
    "particle_metric",
    kernel=lambda: on_latents(LINE, random_walk, 0.5),
    particles=const(Weighted({"slope": jnp.arange(3.0)}, jnp.zeros(3))),
)
call(
    "accept",
    old=lambda: seed(LINE.generate)(KEY)[0],
    new=lambda: seed(LINE.generate)(KEY)[0],
    log_ratio=const(0.0),
    random=True,
)
call(
    "sample_posterior",
    key=const(KEY),
    target=LINE_,
    algorithm=lambda: mh(LINE, "slope"),
    draws=const(2),
    warmup=const(0),
    thin=const(1),
    chains=const(2),
    initial=const("prior"),
    batch_size=const(1),
    mesh=const(None),
    progress=const(False),
    checkpoint=const(None),
    heavy=True,
)
call(
    "sample_posteriors",
    key=const(KEY),
    targets=lambda: [LINE, LINE],
    make=const(lambda target: mh(target, "slope")),
    draws=const(2),
    warmup=const(0),
    thin=const(1),
    chains=const(2),
    initial=const("prior"),
    batch_size=const(1),
    mesh=const(None),
    progress=const(False),
    checkpoint=const(None),
    heavy=True,
)
call(
    "run_particles",
    key=const(KEY),
    program=const(lambda: particle_filter(step_model, 0.0, YS, 4)),
    observations=const(YS),
    progress=const(False),
    checkpoint=const(None),
    heavy=True,
)
call(
    "Draws",
    choices=const({"slope": np.zeros((2, 30))}),
    stats=const({}),
    target=LINE_,
    status=const("complete"),
    dims=const({"slope": ()}),
    coords=const({}),
)
call(
    "Particles",
    choices=const({"slope": np.zeros((2, 30))}),
    log_weight=const(np.zeros((2, 30))),
    target=LINE_,
    status=const("complete"),
)
call(
    "posterior_predictive",
    key=const(KEY),
    draws=draws,
    target=const(None),
    args=const(None),
    batch=const(10),
    to=const(None),
    heavy=True,
)
call(
    "prior_predictive", key=const(KEY), target=LINE_, n=const(3), batch=const(3), to=const(None),
    heavy=True,
)  # fmt: skip
call(
    "log_likelihood", draws=draws, target=const(None), batch=const(10), to=const(None), heavy=True
)
call("loo", draws=draws, target=const(None), selection=const("y"), heavy=True)
call(
    "to_datatree",
    draws=draws,
    posterior_predictive=const(None),
    log_likelihood=const(None),
    prior=const(None),
    coords=const(None),
    heavy=True,
)
call(
    "read_posteriordb",
    folder=const("examples/data/posteriordb"),
    name=const("kidiq-kidscore_momhs"),
)
call("plot_posterior", draws=draws, names=const(["slope"]), prob=const(0.9), heavy=True)
call("plot_trace", draws=draws, names=const(["slope"]), heavy=True)
call("plot_predictive", predictive=lambda: {"y": np.zeros((1, 2, 3))}, target=LINE_, heavy=True)
call("plot_ancestry", found=filtered, address=const("z"), heavy=True)
call("plot_ess", found=filtered, floor=const(0.01), heavy=True)
call("plot_weights", found=filtered, heavy=True)
