"""The report's last pages: the commands, the machine, and whose work is shown."""

from html import escape

from benchmarks.demo.drawings import Attribution
from benchmarks.demo.markup import section
from benchmarks.demo.results import DemoResults
from benchmarks.demo.steps import Step


def commands(results: DemoResults) -> str:
    """Return every command that was run, with its time."""
    words = """These commands made this page; <code>make demo</code> runs them all. For pairs of your own, start from
<code>benchmarks/demo/demo.toml</code>."""
    return section("commands", "Do it yourself", words, f'<ol class="steps">{"".join(map(_step, results.steps))}</ol>')


def environment(results: DemoResults) -> str:
    """Return the card of the machine and the versions."""
    card, made = results.bench.environment, results.provenance
    facts = {
        "Date": card.date,
        "Processor": f"{card.cpu}, {card.runtime.num_threads} threads",
        "System": card.platform,
        "Runtime": f"mmalign-runtime {card.mmalign_runtime}, onnxruntime {card.onnxruntime}, python {card.python}",
        "Provider": card.runtime.provider,
        "Exported with": ", ".join(f"{name} {found}" for name, found in sorted(made.versions.items())),
        "ONNX opset": str(made.opset_version),
        "Space": card.runtime.space_id,
        "Variant": card.runtime.variant_id,
    }
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return section("environment", "Made on", "", f'<div class="card"><dl>{rows}</dl></div>')


def attributions(results: DemoResults) -> str:
    """Return whose drawings, words, weights and photograph are shown or used, and on which terms."""
    words = """Drawings and words are other people's and keep their licences, on this page too: OpenMoji's drawings may
be passed on under the same licence alone."""
    items = "".join(map(_attribution, results.attributions))
    body = f"""<ul class="credits">{items}
<li><b>weights</b> of EfficientNet-Lite0 and all-MiniLM-L6-v2: {escape(results.provenance.weights_licence)}.</li>
<li><b>golden photograph</b> of Grace Hopper: United States Navy, public domain.</li></ul>"""
    return section("credits", "Whose work this is", words, body)


def _step(step: Step) -> str:
    # Word by word, so that a line never breaks inside an option.
    words = " ".join(f"<span>{escape(word)}</span>" for word in step.command.split(" "))
    return f"""<li><span>{escape(step.title)}</span><span class="num">{step.seconds:.1f} s</span>
<code>$ {words}</code></li>"""


def _attribution(attribution: Attribution) -> str:
    licence = escape(attribution.licence)
    if attribution.licence_url:
        licence = f'<a href="{escape(attribution.licence_url)}">{licence}</a>'
    credit, changes = escape(attribution.credit.rstrip(".")), escape(attribution.changes)
    return f"<li><b>{escape(attribution.name)}</b> {credit}. {licence}. Changes: {changes}.</li>"
