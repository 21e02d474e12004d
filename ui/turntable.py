"""Objects on the page: seen while they are made, and turned when they are done. All of a comparison turn together."""

import math
from html import escape
from pathlib import Path

import numpy as np
import PIL.Image

from backends.spec import Image, Turntable
from ui import inline, sound

SIDE = 256  # px at most of a frame
KINDS = {".webp": "WebP"}
TELLS = {".glb": "its surface", ".webp": "a film of it turning", ".ply": "its Gaussians", ".png": "all sides in a row"}


def live(value: Image) -> str:
    """One view of an object, where the turntable will stand."""
    return f'<figure class="turntable"><div class="view"><img alt="the object so far" src="{_uri(PIL.Image.fromarray(value.pixels), 92)}"></div></figure>'


def html(value: Turntable, *paths: str, facts: bool = True) -> str:
    """All frames in one picture that the script below moves; `paths`: the files to take; `facts`: whether it says what it is."""
    count, columns = len(value.frames), math.ceil(math.sqrt(len(value.frames)))
    rows = math.ceil(count / columns)
    take = "".join(
        f'<a href="{escape(sound.url(path))}" download="{escape(Path(path).name)}" title="{TELLS.get(Path(path).suffix, "")}">{KINDS.get(Path(path).suffix, Path(path).suffix[1:].upper())}</a>'
        for path in paths
    )
    said = f"{value.caption} · " if value.caption else ""
    said += f"{len(value.mesh.faces):,} triangles" if value.mesh is not None else "no surface yet"
    return (
        f'<figure class="turntable" data-frames="{count}" data-columns="{columns}" data-rows="{rows}">'
        f'<div class="view" tabindex="0" role="img" aria-label="the object; drag it or use the arrow keys to turn it">'
        f'<i style="background-image:url({_uri(_sheet(value.frames, columns, rows), 88)});background-size:{100 * columns}% {100 * rows}%"></i></div>'
        f'<div class="turn"><button type="button" class="spin" aria-label="turn, or stand still"></button>'
        f'<input type="range" min="0" max="{max(count - 1, 1)}" value="0" aria-label="side"></div>'
        + (f"<figcaption>{escape(said)}{take}</figcaption></figure>" if facts else "</figure>")
    )


def _sheet(frames: np.ndarray, columns: int, rows: int) -> PIL.Image.Image:
    height, width = frames.shape[1:3]
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    sheet = PIL.Image.new("RGB", (columns * size[0], rows * size[1]))
    for i, frame in enumerate(frames):
        sheet.paste(PIL.Image.fromarray(frame).resize(size, PIL.Image.LANCZOS), (i % columns * size[0], i // columns * size[1]))
    return sheet


def _uri(picture: PIL.Image.Image, quality: int) -> str:
    return inline.data_uri(picture, "JPEG", quality=quality, subsampling=0)


SCRIPT = """
<script>
(() => {
  // One angle for all turntables of a comparison; `at` is a share of the full turn.
  const PERIOD = 7000, TICK = 60, turns = new WeakMap();
  const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
  const stage = (table) => table.closest('.stage') || table;
  const turn = (table) => {
    const place = stage(table);
    if (!turns.has(place)) turns.set(place, { at: 0, spins: !still });
    return turns.get(place);
  };
  const show = (table) => {
    const now = turn(table), { frames: n, columns, rows } = table.dataset, i = Math.round(now.at * n) % n;
    if (table.side === i && table.spins === now.spins) return;
    table.side = i;
    table.spins = now.spins;
    const part = (k, of) => of > 1 ? 100 * k / (of - 1) : 0;
    table.querySelector('.view i').style.backgroundPosition = `${part(i % columns, columns)}% ${part(Math.floor(i / columns), rows)}%`;
    const range = table.querySelector('input');
    range.value = i;
    range.setAttribute('aria-valuetext', `${Math.round(360 * i / n)} degrees from the front`);
    table.querySelector('.spin').classList.toggle('on', now.spins);
  };
  const tables = () => document.querySelectorAll('.turntable[data-frames]');
  const to = (table, at) => {
    Object.assign(turn(table), { at: ((at % 1) + 1) % 1, spins: false });
    tables().forEach(show);
  };
  setInterval(() => {
    const seen = [...tables()].filter((table) => table.offsetParent);
    new Set(seen.map(turn)).forEach((now) => { if (now.spins) now.at = (now.at + TICK / PERIOD) % 1; });
    seen.forEach(show);
  }, TICK);
  let dragged = null;
  document.addEventListener('pointerdown', (event) => {
    const table = event.target.closest('.turntable[data-frames]');
    if (!table || !event.target.closest('.view')) return;
    dragged = { table, x: event.clientX, at: turn(table).at, width: table.querySelector('.view').clientWidth };
    event.target.setPointerCapture(event.pointerId);
  });
  document.addEventListener('pointermove', (event) => {
    if (dragged && event.clientX !== dragged.x) to(dragged.table, dragged.at - (event.clientX - dragged.x) / dragged.width);
  });
  for (const end of ['pointerup', 'pointercancel']) document.addEventListener(end, () => { dragged = null; });
  document.addEventListener('input', (event) => {
    const table = event.target.closest('.turntable');
    if (table) to(table, event.target.value / table.dataset.frames);
  });
  document.addEventListener('click', (event) => {
    const table = event.target.closest('.turntable .spin')?.closest('.turntable');
    if (table) turn(table).spins = !turn(table).spins;
  });
  document.addEventListener('keydown', (event) => {
    const table = event.target.closest?.('.turntable[data-frames]'), way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!table || !way) return;
    event.preventDefault();
    to(table, turn(table).at + way / table.dataset.frames);
  });
  // The viewer of objects would take the focus before all else on the page.
  new MutationObserver((changes) => changes.forEach(({ target }) => { if (target.tabIndex > 0) target.tabIndex = 0; })).observe(document, { subtree: true, attributeFilter: ['tabindex'] });
})();
</script>
"""
