"""Rewrite the README's table of methods from the registry and assets/proofs.json: python scripts/readme_table.py"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from backends import METHODS, headless  # noqa: E402


def row(method, proof) -> str:
    if not proof or "statements" not in proof:
        return f"| {method.title} | {method.task.title} | not measured yet | |"
    (held, stated), lead, exact = headless.held(proof), headless.lead(proof), headless.identities(proof)
    said = "" if method.paper else "baseline; "
    said += f"{'✓' if proof['passed'] else '✗'} {held} of {stated} statements hold{exact and f', {exact}'}. "
    said += f"{'' if lead['held'] else 'Not reproduced: '}{lead['statement']}: **{lead['value']:.3g}** ({lead['op']} {lead['threshold']:g})"
    others = ", ".join(f"seed {k} {'{} of {}'.format(*v['held']) if 'held' in v else '✓' if v['passed'] else '✗'}" for k, v in proof.get("other_seeds", {}).items() if v.get("weights") == proof.get("weights"))
    said = said.replace("|", "\\|")  # a bar would end the cell
    return f"| {method.title} | {method.task.title} | {said} | {headless.when(proof)}{'; ' + others if others else ''} |"


def main() -> None:
    proofs = headless.proofs()
    methods = sorted((m for m in METHODS.values() if m.task.ready), key=lambda m: (not m.paper, m.task.slug, m.title))
    rows = [row(m, proofs.get(m.slug)) for m in methods if m.paper or m.slug in proofs]
    beside = {}  # tab -> its baselines
    for m in methods:
        if not m.paper:
            beside.setdefault(m.task.title, []).append(m.title)
    lines = [f"- {tab}: {'; '.join(titles)}" for tab, titles in beside.items()]
    table = "\n".join(["| method | tab | measured | date, other seeds |", "|---|---|---|---|", *rows, "", "Baselines that run beside them:", "", *lines])
    path = ROOT / "README.md"
    head, _, rest = path.read_text().partition("<!-- table -->")
    _, _, tail = rest.partition("<!-- end of table -->")
    path.write_text(f"{head}<!-- table -->\n{table}\n<!-- end of table -->{tail}")


if __name__ == "__main__":
    main()
