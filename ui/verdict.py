"""What a method's proof measured, under its summary on the tab: how many statements hold, and each of them on asking."""

from html import escape

from backends import headless


def html(slug: str) -> str:
    """Nothing for a method without a proof, such as a baseline."""
    proof = headless.proof(slug)
    if not proof or not proof.get("statements"):
        return ""
    effects = headless.effects(proof)
    held = sum(s["held"] for s in effects)
    rows = "".join(
        f'<li class="{"held" if s["held"] else "failed"}">{escape(s["statement"])}: <b>{s["value"]:.4g}</b> ({escape(s["op"])} {s["threshold"]:.4g}, n = {s["n"]})</li>'
        for s in effects
    )
    when = f"{proof['date']}, on earlier weights" if proof["stale"] else proof["date"]
    return (
        f'<details class="verdict-of"><summary>Measured here: <b class="{"held" if held == len(effects) else "failed"}">{held} of {len(effects)}</b> statements hold'
        f" <time>{escape(when)}</time></summary><ul>{rows}</ul></details>"
    )
