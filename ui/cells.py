"""The cells of a grid on the page: a table of small pictures that fills as they run, coloured by a figure, and one of them seen large."""

import json
from html import escape
from pathlib import Path

import gradio as gr

from backends import grids, jobs
from backends.spec import Image, Outcome, Step
from ui import results, sound, views, visitor
from ui.views import Live

PARTS = 3  # components: the frame, what changed in it, and the cell that is seen large
SIDE = 216  # px at most of a cell's picture
BIG = 640


# --- the table -------------------------------------------------------------------------------------------


def frame(run: str, grid: dict, lives: list[Live], sheet: str = "") -> str:
    """The whole table. `lives`: of the cells in the order in which they run; `sheet`: the path of the picture of all."""
    places = {place: i for i, place in enumerate(grids.places(grid))}
    x, y = grid["x"], grid.get("y")
    corner = escape(grids.title(x["axis"])) + " →" + (f"<br>{escape(grids.title(y['axis']))} ↓" if y else "")
    head = "".join(f'<th scope="col">{escape(grids.label(x["axis"], value))}</th>' for value in x["values"])
    body = ""
    for j in range(len(y["values"]) if y else 1):
        side = f'<th scope="row">{escape(grids.label(y["axis"], y["values"][j])) if y else ""}</th>'
        row = "".join(f"<td>{cell(places[i, j], lives[places[i, j]], grids.name(grid, (i, j)))}</td>" for i in range(len(x["values"])))
        body += f"<tr>{side}{row}</tr>"
    take = f'<a href="{escape(sound.url(sheet))}" download="{escape(Path(sheet).name)}">Contact sheet (PNG)</a>' if sheet else ""
    wide = " wide" if len(x["values"]) < 5 else ""
    return (
        f'<div class="xy{wide}" data-run="{escape(run)}"><div class="xy-bar"><label>colour by <select></select></label><span class="xy-scale"></span>'
        f'<output class="xy-count"></output>{take}</div>'
        f'<div class="xy-scroll"><table><thead><tr><th>{corner}</th>{head}</tr></thead><tbody>{body}</tbody></table></div></div>'
    )


def cell(number: int, live: Live, name: str = "") -> str:
    """A cell as a button: its picture or words, what it does, and its figures for the script that colours it."""
    drawn = views.thumbnail(live.main, SIDE) if live.main is not None else f'<p class="words error">{escape(live.error)}</p>' if live.error else ""
    figures = [[m.name, m.value, m.better, views.number(m.value)] for m in live.metrics]
    if live.state in ("done", "stopped"):
        figures += [["seconds", live.seconds, "lower", f"{live.seconds:.1f}"], ["NFE", live.nfe, "lower", views.number(live.nfe)]]
    said = escape(json.dumps(figures, ensure_ascii=False))
    state = f"{live.seconds:.1f} s" if live.state == "done" else live.said
    label = f' aria-label="{escape(name)}" title="{escape(name)}"' if name else ""
    return (
        f'<button type="button" class="{live.state}" data-cell="{number}" data-figures="{said}"{label}><span class="see">{drawn}</span>'
        f'<span class="bar"><i style="width:{100 * live.share:.0f}%"></i></span><span class="say"><b class="state">{escape(state)}</b><b class="figure"></b></span></button>'
    )


# --- one cell --------------------------------------------------------------------------------------------


def large(event: gr.EventData, request: gr.Request) -> str:
    """The handler of a press on a cell: as it is now, or what it left, large and with all figures."""
    studio, number = jobs.studio(), int(event.cell)
    run = studio.find(str(event.run)[:40], visitor.owner(request), shared=True)
    grid = run and run.given.get("grid")
    if not grid or not 0 <= number < len(grids.places(grid)):
        return '<p class="note" role="status">This cell is not kept any more.</p>'
    with studio.watch(run) as feed:
        events = [e for e in feed.take() or [] if e.arm == number]
    live, picture = Live("waiting"), ""
    for one in events:
        live.see(one)
        if isinstance(one.event, Outcome):
            live.files = results.taken(one.event, run.pictures)
            if path := results.final(one.event, run.pictures):
                picture = f'<a href="{escape(sound.url(path))}" download="{escape(Path(path).name)}"><img alt="" src="{escape(sound.url(path))}"></a>'
        elif isinstance(one.event, Step) and isinstance(one.event.show, Image):
            picture = f'<img alt="" src="{views.data_uri(one.event.show.pixels, BIG, "JPEG")}">'
    figures = [(m.name + {"lower": " ↓", "higher": " ↑"}.get(m.better, ""), m.value) for m in live.metrics]
    table = views.table(("figure", "value"), figures) if figures else ""
    name = escape(grids.name(grid, grids.places(grid)[number]))
    return f'<div class="large" role="status"><h4>{name}</h4><div class="parts">{picture}<div>{live.html}{table}</div></div></div>'


# --- in the browser --------------------------------------------------------------------------------------

# In the frame's component: paint what is drawn anew, and tell which cell is pressed, again when its run is over. In the other: what changed goes into
# the cells, which stay the same elements, so that the keyboard's focus stays too.
FRAME = """
let open = {};
const press = (cell) => {
  open = { cell: cell.dataset.cell, run: cell.closest('.xy').dataset.run };
  element.querySelectorAll('[data-cell]').forEach((other) => other.toggleAttribute('data-open', other === cell));
  trigger('click', open);
};
const draw = () => {
  window.unnoiseGrid?.(element);
  const cell = element.querySelector(`.xy[data-run="${open.run}"] [data-cell="${open.cell}"]`);
  if (cell) press(cell);
};
draw();
watch('value', draw);
element.addEventListener('click', (event) => {
  const cell = event.target.closest('[data-cell]');
  if (cell) press(cell);
});
"""
CHANGES = """
watch('value', () => {
  const frame = element.closest('.xy-panel')?.querySelector('.xy');
  if (!frame) return;
  for (const cell of element.querySelectorAll('[data-cell]')) {
    const shown = frame.querySelector(`[data-cell="${cell.dataset.cell}"]`);
    if (!shown) continue;
    shown.className = cell.className;
    shown.dataset.figures = cell.dataset.figures;
    shown.innerHTML = cell.innerHTML;
  }
  window.unnoiseGrid(frame.parentElement);
});
"""
SCRIPT = """
<script>
(() => {
  // Which figure colours a tab's cells, kept while the frame is drawn anew; '' for none.
  const wished = new WeakMap();
  window.unnoiseGrid = (box) => {
    const grid = box.querySelector('.xy');
    if (!grid) return;
    const cells = [...grid.querySelectorAll('[data-cell]')].map((cell) => [cell, new Map(JSON.parse(cell.dataset.figures).map(([name, ...rest]) => [name, rest]))]);
    const names = [...new Set(cells.flatMap(([, figures]) => [...figures.keys()]))], select = grid.querySelector('select');
    const wish = wished.get(box), name = wish === '' || names.includes(wish) ? wish : names[0] ?? '';
    if ([...select.options].slice(1).map((o) => o.value).join('|') !== names.join('|') || !select.options.length)
      select.replaceChildren(new Option('nothing', ''), ...names.map((n) => new Option(n, n)));
    select.value = name;
    const values = cells.map(([, figures]) => figures.get(name)?.[0]).filter(Number.isFinite), low = Math.min(...values), high = Math.max(...values);
    let better = '', ends = ['', ''];
    for (const [cell, figures] of cells) {
      const [value, way, said] = figures.get(name) ?? [], share = high > low ? (value - low) / (high - low) : 0.5;
      better = way ?? better;
      if (value === low) ends[0] = said;
      if (value === high) ends[1] = said;
      cell.toggleAttribute('data-valued', Number.isFinite(value));
      cell.style.setProperty('--h', way === 'lower' ? 1 - share : share);
      cell.querySelector('.figure').textContent = said ?? '';
    }
    if (better === 'lower') ends.reverse();
    const scale = grid.querySelector('.xy-scale'), two = values.length > 1 && high > low;
    scale.replaceChildren(...(two ? [ends[0], document.createElement('i'), ends[1] + (better ? ' is best' : '')] : []));
    const done = cells.filter(([cell]) => /done|failed|stopped/.test(cell.className)).length;
    grid.querySelector('.xy-count').textContent = `${done} of ${cells.length} cells`;
  };
  document.addEventListener('change', (event) => {
    const grid = event.target.matches('.xy select') && event.target.closest('.xy');
    if (!grid) return;
    wished.set(grid.parentElement, event.target.value);
    window.unnoiseGrid(grid.parentElement);
  });
})();
</script>
"""
