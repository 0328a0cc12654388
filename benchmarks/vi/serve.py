"""What a peer's script ends with: it says what it is, then times calls when it is asked to.

Nothing of this project is imported, since it runs in the interpreters of the peers.
"""

import json
import sys
import time


def serve(run, **facts):
    """Print `facts`, then for each line with a number of calls of `run` their times."""
    run()
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        calls = int(line)
        clock, cpu = time.perf_counter(), time.process_time()
        for _ in range(calls):
            run()
        spent = time.perf_counter() - clock, time.process_time() - cpu
        each = [1e3 * seconds / calls for seconds in spent]
        print(json.dumps(dict(zip(("clock", "cpu"), each, strict=True))), flush=True)


def compiled(step, *args):
    """A jitted step of JAX with its arguments, and what is known of it."""
    import jax

    times = [time.perf_counter()]
    traced = jax.jit(step).trace(*args)
    lowered = traced.lower()
    times.append(time.perf_counter())
    program = lowered.compile()
    times.append(time.perf_counter())
    cost = program.cost_analysis()
    cost = cost[0] if isinstance(cost, list | tuple) else cost

    def run():
        jax.block_until_ready(program(*args))

    return run, {
        "equations": count(traced.jaxpr.jaxpr),
        "flops": float(cost["flops"]),
        "trace": times[1] - times[0],
        "compile": times[2] - times[1],
    }


def variance(slope, keys, *args):
    """Of all components of a gradient together; `slope(key, *args)` gives a value and it."""
    import jax
    import numpy as np

    total, square = 0.0, 0.0
    for key in keys:
        leaves = jax.tree.leaves(slope(key, *args)[1])
        gradient = np.concatenate([np.ravel(leaf) for leaf in leaves]).astype(float)
        total, square = total + gradient, square + gradient**2
    n = len(keys)
    return float(np.sum(square - total**2 / n) / (n - 1))


def count(jaxpr):
    """Equations at any depth; a `jit` counts as its body. As in `benchmarks.measure`."""
    total = 0
    for eqn in jaxpr.eqns:
        total += eqn.primitive.name not in ("jit", "pjit")
        for value in eqn.params.values():
            for each in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(each, "jaxpr", each)
                if hasattr(inner, "eqns"):
                    total += count(inner)
    return total
