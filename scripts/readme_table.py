"""Rewrite the README's table of methods and docs/proofs.md from the registry and assets/proofs.json: python scripts/readme_table.py"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from backends import METHODS, headless  # noqa: E402

HEAD = """# What was measured, statement by statement

Written by `scripts/readme_table.py` from `assets/proofs.json`: seed 0, on the embedded models, on held-out inputs. ✓ holds, ✗ does not; n is the number of inputs.
A figure with an interval is the interval's worse end. `PROOF_SEED=1 make proof METHOD=storm` takes one again; [limits.md](limits.md) says why some fail.
"""


def cell(text: str) -> str:
    return text.replace("|", "\\|")  # a bar would end the cell


def others(proof: dict) -> str:
    """At other seeds, on the same weights: how many hold, or whether all do where that alone was kept."""
    alike = {k: v for k, v in sorted(proof.get("other_seeds", {}).items()) if v.get("weights") == proof.get("weights")}
    return ", ".join("{} of {}".format(*v["held"]) if "held" in v else "all" if v["passed"] else "not all" for v in alike.values())


def row(method, proof) -> str:
    if not proof or "statements" not in proof:
        return f"| {method.title} | {method.task.title} | not measured yet | | |"
    held, stated = headless.held(proof)
    link = f"[{held} of {stated}](docs/proofs.md#{method.slug})"
    return f"| {method.title} | {method.task.title} | {'✓' if held == stated else '✗'} {link} | {others(proof)} | {headless.when(proof)} |"


def section(method, proof) -> str:
    held, stated = headless.held(proof)
    exact = headless.identities(proof)
    took = f", {proof['device']}, {proof['seconds']:.0f} s" if "device" in proof else ""
    said = f"{method.task.title}, {headless.when(proof)}{took}: {held} of {stated} statements hold{exact and f', {exact}'}."
    rows = [
        f"| {'✓' if s['held'] else '✗'} | {cell(s['statement'])} | {s['value']:.4g} | {s['op']} {s['threshold']:.4g} | {s['n']} |"
        for s in headless.effects(proof)
    ]
    title = f'<a id="{method.slug}"></a>\n\n## {method.title}'
    return "\n".join([title, "", said, "", "| | statement | measured | asked | n |", "|---|---|---|---|---|", *rows])


def main() -> None:
    proofs = headless.proofs()
    methods = sorted((m for m in METHODS.values() if m.task.ready), key=lambda m: (not m.paper, m.task.slug, m.title))
    shown = [m for m in methods if m.paper or m.slug in proofs]
    beside = {}  # tab -> its baselines
    for m in methods:
        if not m.paper:
            beside.setdefault(m.task.title, []).append(m.title)
    rows = [row(m, proofs.get(m.slug)) for m in shown]
    lines = [f"- {tab}: {'; '.join(titles)}" for tab, titles in beside.items()]
    head = ["| method | tab | statements that hold | at seeds 1, 2 | measured |", "|---|---|---|---|---|"]
    table = "\n".join([*head, *rows, "", "Baselines that run beside them:", "", *lines])
    path = ROOT / "README.md"
    before, _, rest = path.read_text().partition("<!-- table -->")
    _, _, after = rest.partition("<!-- end of table -->")
    path.write_text(f"{before}<!-- table -->\n{table}\n<!-- end of table -->{after}")
    (ROOT / "docs" / "proofs.md").write_text(HEAD + "\n" + "\n\n".join(section(m, proofs[m.slug]) for m in shown if m.slug in proofs) + "\n")


if __name__ == "__main__":
    main()
