"""What a method's proof measured, under its summary on the tab: how many statements hold, and each of them on asking."""

from html import escape

from backends import headless


def html(slug: str) -> str:
    """Nothing for a method without a proof, such as a baseline."""
    proof = headless.proof(slug)
    if not proof or not proof.get("statements"):
        return ""
    held, stated = headless.held(proof)
    rows = "".join(
        f'<li class="{"held" if s["held"] else "failed"}">{escape(s["statement"])}: <b>{s["value"]:.4g}</b> ({escape(s["op"])} {s["threshold"]:.4g}, n = {s["n"]})</li>'
        for s in headless.effects(proof)
    )
    return (
        f'<details class="verdict-of"><summary>Measured here: <b class="{"held" if held == stated else "failed"}">{held} of {stated}</b> statements hold'
        f" <time>{escape(headless.when(proof))}</time></summary><ul>{rows}</ul></details>"
    )
