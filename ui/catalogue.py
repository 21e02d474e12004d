"""The papers: search, filters, and one card each with what was measured here. Status is read, never written by hand."""

from html import escape

from backends import headless
from backends.registry import METHODS, TASKS
from ui import compare

STATUSES = ("all", "runs here", "proved here", "not here yet")


def status(paper: dict, proofs: dict) -> str:
    if paper["slug"] not in METHODS or not METHODS[paper["slug"]].task.ready:
        return "not here yet"
    proof = proofs.get(paper["slug"], {})
    return "proved here" if proof.get("passed") and not proof["stale"] else "runs here"


def families() -> list[str]:
    return sorted({p["family"] for p in headless.papers()})


def tasks() -> list[tuple[str, str]]:
    """(title, slug): a task that stands by its title, one to come by its words."""
    slugs = sorted({p["task"] for p in headless.papers()})
    return [(TASKS[s].title if s in TASKS else s.replace("_", " ").capitalize(), s) for s in slugs]


def found(query: str, family: str, task: str, state: str) -> list[tuple[dict, str]]:
    """(paper, status), those that run first; every word of the query must stand somewhere on the card."""
    proofs, words = headless.proofs(), (query or "").lower()[:200].split()
    rows = []
    for paper in headless.papers():
        standing = status(paper, proofs)
        text = " ".join([paper["title"], paper["short"], paper["idea"], paper["slug"], paper["arxiv"], *paper["tags"]]).lower()
        if all(w in text for w in words) and family in ("", paper["family"]) and task in ("", paper["task"]):
            here = standing != "not here yet"
            if state in ("all", standing) or (state == "runs here" and here):
                rows.append((paper, standing))
    order = {"proved here": 0, "runs here": 1, "not here yet": 2}
    return sorted(rows, key=lambda row: (order[row[1]], row[0]["short"].lower()))


def html(query: str = "", family: str = "", task: str = "", state: str = "all") -> str:
    rows, proofs = found(query, family, task, state), headless.proofs()
    total = len(headless.papers())
    running = sum(p["slug"] in METHODS for p in headless.papers())
    count = f'<p class="count">{len(rows)} of {total} papers · {running} run here</p>'
    if not rows:
        return count + '<p class="empty">No paper fits. Try fewer words or another filter.</p>'
    return count + '<div class="papers">' + "".join(_card(p, s, proofs.get(p["slug"])) for p, s in rows) + "</div>"


def _card(paper: dict, standing: str, proof: dict | None) -> str:
    method = METHODS.get(paper["slug"])
    open_ = f'<button data-open="{escape(paper["slug"])}">Open</button>' if method else ""
    code = f'<a href="https://github.com/{escape(paper["code"])}" target="_blank" rel="noopener">code</a>' if paper.get("code") else ""
    where = " ".join(str(v) for v in (paper.get("venue"), paper["year"]) if v)
    return f"""<article class="paper {standing.split()[0]}"><header><span class="family">{escape(paper["family"])}</span><span class="status">{standing}</span></header>
<h3>{escape(paper["short"])}</h3><p class="title">{escape(paper["title"])}</p><p class="idea">{escape(paper["idea"])}</p>{_proof(proof)}
<footer><span>{escape(where)}</span><a href="https://arxiv.org/abs/{escape(paper["arxiv"])}" target="_blank" rel="noopener">arXiv</a>{code}{open_}</footer></article>"""


def _proof(proof: dict | None) -> str:
    """The main effect as measured: its figure beside its threshold, how many cases, when."""
    if not proof or not proof.get("statements"):
        return ""
    main = headless.lead(proof)
    held, stated = headless.held(proof)
    mark = f"{held} of {stated} statements hold" + ("" if main["held"] else "; not reproduced")
    exact = headless.identities(proof)
    return (f'<p class="proof {"held" if proof["passed"] else "failed"}"><b>{mark}: {main["value"]:.4g}</b> ({escape(main["op"])} {main["threshold"]:.4g}, n = {main["n"]}) '
            f'{escape(main["statement"])}{exact and f" · {exact}"} <time>{escape(headless.when(proof))}</time></p>')  # fmt: skip


def opened(slug: str) -> tuple[str, dict] | None:
    """(task, its tab's state): the paper's method beside its baseline, with an example."""
    method = METHODS.get(slug)
    if method is None:
        return None
    task = method.task
    examples = [e for e in task.examples if compare.here(e)]
    named = [e for e in examples if any(a["method"] == slug for a in e.get("arms", []))]
    example = next(iter(named or examples), {})
    arms = example["arms"] if named else [{"method": s} for s in dict.fromkeys((task.baseline, slug)) if s in METHODS]
    return task.slug, compare.state_of(example | {"arms": arms})
