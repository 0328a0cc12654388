"""What notebooks show of results: the cells of their text, as HTML in which these are escaped."""

from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import Draws, Particles
from ppl import Target, dependencies, factor, gen, sample, seed
from ppl.notebook import table
from semantics import Verdict, check_kernel

ALLOWED = {"table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "p", "pre"}


class Shown(HTMLParser):
    """The texts of the cells by row, and all texts, of HTML whose tags are balanced."""

    def __init__(self, html):
        super().__init__()
        self.open, self.rows, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert tag in ALLOWED
        assert {name for name, _ in attrs} <= {"scope", "style"}
        # no colours: those of the notebook stay
        assert all(value.startswith("text-align") for name, value in attrs if name == "style")
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        elif data.strip():
            self.texts.append(data)


def shown(result):
    return Shown(result._repr_html_())


@gen
def model():
    a = sample("<b>", dist.Bernoulli(0.5))
    x = sample("x", dist.Normal(a, 1.0).expand([3]))
    factor(-a)
    return x


TRACE, _ = seed(model.generate)(jax.random.key(0), {"<b>": 1, "x": jnp.zeros(3)})


def test_a_trace_has_its_values_and_its_score():
    found = shown(TRACE)
    assert found.texts == ["Trace of model"]
    *choices, score = found.rows
    assert choices == [['"<b>"', "1"], ['"x"', f"{TRACE['x'].dtype}[3]"]]
    assert score == ["score", f"{float(TRACE.score):.4g}"]
    text = "; ".join(["model", ", ".join(": ".join(row) for row in choices), "=".join(score)])
    assert repr(TRACE) == f"Trace({text})"


def test_a_trace_that_is_not_known_yet_has_dtypes():
    seen = []
    jax.jit(lambda trace: seen.append(shown(trace).rows[0][1]))(TRACE)
    assert seen == [f"{TRACE['<b>'].dtype}[]"]


def test_a_graph_has_the_rows_of_its_text():
    graph = dependencies(model)
    head, *rows = shown(graph).rows
    assert head == ["", "depends on"]
    assert "\n".join(" <- ".join(filter(None, row)) for row in rows) == str(graph)
    assert [row[1] for row in rows] == ["", '"<b>"', '"<b>"', '"x"']


def numbers(n):
    """Draws of n scalars that are independent, and one that never moves."""
    x = np.random.default_rng(0).normal(size=(4, 200, n))
    return Draws({"<b>": x, "still": np.ones((4, 200))})


@pytest.mark.parametrize("n", [2, 40])
def test_a_summary_has_the_cells_of_its_text(n):
    summary = numbers(n).summary()
    found = shown(summary)
    head, *rows = found.rows
    text = str(summary).splitlines()
    assert found.texts[0] == text[0]
    assert " ".join(head).split() == text[1].split()
    named = [row for row in rows if row[0].startswith("<b>") or row[0] == "still"]
    assert len(named) == (3 if n == 2 else 20)
    for row, line in zip(named, text[2:], strict=False):
        note = row[-1]
        cells = [cell for cell in row[:-1] if not (note and cell == "-")]
        assert " ".join([*cells, note]).split() == line.split()
    assert any(t.startswith("... 21 more rows") for t in found.texts) == (n == 40)
    assert summary.verdict.line in found.texts


def test_a_summary_of_particles_also_says_what_they_tell():
    x = np.random.default_rng(0).normal(size=(20, 100))
    summary = Particles({"<b>": x}, np.zeros_like(x)).summary()
    found = shown(summary)
    caption, head, row, told, *_ = str(summary).splitlines()
    assert found.texts[:2] == [caption, told] and told == summary.told
    assert [" ".join(cells).split() for cells in found.rows[:2]] == [head.split(), row.split()]


@pytest.mark.parametrize("n", [1, 2])
def test_a_verdict_has_the_findings_of_its_text(n):
    x = np.random.default_rng(0).normal(size=(4, 500))
    apart = x + np.array([[0.0], [0.0], [9.0], [9.0]])
    verdict = Draws({"<b>": x if n == 1 else apart}).verdict()
    found = shown(verdict)
    first, *others = str(verdict).splitlines()
    assert found.texts == [first]
    assert [f"  {kind}: {text}: {todo}" for kind, text, todo in found.rows[1:]] == others
    assert len(others) == n - 1


def test_a_check_has_the_numbers_of_its_text():
    passed = Verdict("kernel", True, "e-value", 0.5, 18.4, 24, programs=3, variance=2.5)
    head, row = shown(passed).rows
    assert dict(zip(head, row, strict=True)) == {
        "check": "kernel", "verdict": "passed", "method": "e-value", "programs": "3",
        "log e": "0.5", "at most": "18", "n": "24", "variance": "2.5",
    }  # fmt: skip
    assert all(cell in str(passed) for cell in row)


def test_a_check_that_failed_shows_where():
    @gen
    def coin():
        sample("x", dist.Bernoulli(0.25))

    verdict = check_kernel(
        lambda target: lambda trace: target.moved(trace, {"x": 1})[0], Target(coin)
    )
    assert not verdict
    found = shown(verdict)
    assert found.texts == [verdict.witness]
    assert "FAILED" in found.rows[1]


def test_all_that_is_given_is_escaped():
    html = table([("<script>", '"&')], caption="<i>", head=("<b>", "&amp;"), foot=[("'", "<")])
    found = Shown(html)
    assert found.rows == [["<b>", "&amp;"], ["<script>", '"&'], ["'", "<"]]
    assert found.texts == ["<i>"]
