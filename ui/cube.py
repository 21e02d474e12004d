"""Spectral cubes on the page: given by a file, looked at band by band, and at any pixel as a spectrum. All of a comparison show one band and one pixel."""

import json
import math
from html import escape
from pathlib import Path

import gradio as gr
import numpy as np
import PIL.Image

from backends import cubes, inputs
from backends.spec import Cube
from ui import inline, sound
from ui.reading import EVENT, read

SIDE, BANDS = 128, 96  # px and bands at most that go to the page
ENDINGS = [".npy", ".npz", ".mat", ".zip"]


def field(what: str, label: str, help: str, value: Cube | None) -> gr.State:
    """A state that holds a Cube or None, and around it what fills it."""
    made = gr.State(value)
    with gr.Column(elem_classes=["shape-field"]):
        gr.HTML(f'<p class="editor-label">{escape(label)} <span>{escape(help)}</span></p>')
        seen = gr.HTML(view(value))
        with gr.Row(elem_classes=["choose"]):
            file = gr.UploadButton("Open a file", file_types=ENDINGS, size="sm", elem_classes=["quiet"], min_width=90, scale=0)
    file.upload(lambda path: taken(Path(path), what), file, [made, seen], **EVENT)
    return made


def taken(path: Path, what: str) -> tuple:
    """(cube, its view) of an upload; what stood there stays, with a warning that says why, when it can't be taken."""
    found = read(inputs.cube, path, what, "Cube")
    return (gr.skip(),) * 2 if found is None else (found, view(found))


def view(value: Cube | None) -> str:
    return '<div class="shape-view empty">Open a cube: height × width × bands.</div>' if value is None else html(value)


def html(value: Cube, *paths: str) -> str:
    """One band or three as colours, a slider, and the spectrum of a pixel; `paths`: the files to take. The script below draws."""
    values, at = value.values, _chosen(value.values.shape[2])
    step = math.ceil(max(values.shape[:2]) / SIDE)
    small = values[::step, ::step][..., at]
    columns = math.ceil(math.sqrt(len(at)))
    names = [f"{value.wavelengths[b]:.0f} nm" if value.wavelengths else f"band {b + 1}" for b in at]
    shown = [int(np.abs(np.array(at) - band).argmin()) for band in cubes.colours(value)]
    h, w, bands = values.shape
    span = f", {value.low:.4g} to {value.high:.4g}" if (value.low, value.high) != (0, 1) else ""
    take = "".join(f'<a href="{escape(sound.url(path))}" download="{escape(Path(path).name)}">{Path(path).suffix[1:]}</a>' for path in paths)
    data = dict(bands=len(at), columns=columns, width=small.shape[1], height=small.shape[0], colours=json.dumps(shown), names=json.dumps(names))
    attributes = " ".join(f'data-{k}="{escape(str(v))}"' for k, v in data.items())
    return (
        f'<figure class="cube" {attributes}><img hidden alt="" src="{inline.data_uri(_sheet(small, columns))}">'
        f'<canvas width="{small.shape[1]}" height="{small.shape[0]}" tabindex="0" role="img" aria-label="the cube; choose a pixel to see its spectrum"></canvas>'
        f'<label class="band"><input type="range" min="-1" max="{len(at) - 1}" value="-1" aria-label="band"><output>colours</output></label>'
        f'<svg viewBox="0 0 240 70" preserveAspectRatio="none" aria-label="spectrum of the chosen pixel"></svg>'
        f"<figcaption>{w}×{h} pixels, {bands} bands{escape(span)}{take}</figcaption></figure>"
    )


def _chosen(bands: int) -> list[int]:
    """All bands, or an even choice of them."""
    return sorted({round(i * (bands - 1) / (min(bands, BANDS) - 1)) for i in range(min(bands, BANDS))})


def _sheet(values: np.ndarray, columns: int) -> PIL.Image.Image:
    """The bands beside and under each other, grey."""
    h, w, n = values.shape
    sheet = np.zeros((-(-n // columns) * h, columns * w), np.uint8)
    for i in range(n):
        sheet[i // columns * h :, i % columns * w :][:h, :w] = np.round(values[..., i] * 255)
    return PIL.Image.fromarray(sheet)


SCRIPT = """
<script>
(() => {
  // One band and one place for all cubes of a tab; `x` and `y` are shares of the sides.
  const TICK = 120, views = new WeakMap();
  const stage = (cube) => cube.closest('.studio') || document.body;
  const view = (cube) => {
    const place = stage(cube);
    if (!views.has(place)) views.set(place, { band: -1, x: 0.5, y: 0.5, turn: 0 });
    return views.get(place);
  };
  const read = (cube) => {
    const sheet = cube.querySelector('img');
    if (!sheet.complete || !sheet.naturalWidth) return false;
    const { bands, columns, width, height } = cube.dataset, canvas = document.createElement('canvas');
    canvas.width = sheet.naturalWidth;
    canvas.height = sheet.naturalHeight;
    const context = canvas.getContext('2d', { willReadFrequently: true });
    context.drawImage(sheet, 0, 0);
    const all = context.getImageData(0, 0, canvas.width, canvas.height).data;
    cube.at = (band, x, y) => all[4 * ((Math.floor(band / columns) * height + y) * canvas.width + (band % columns) * width + x)];
    cube.spans = [...Array(+bands).keys()].map((band) => {
      const seen = [];
      for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) seen.push(cube.at(band, x, y));
      seen.sort((a, b) => a - b);
      const low = seen[Math.floor(seen.length / 100)], high = seen[Math.floor(seen.length * 0.99)];
      return [low, Math.max(high - low, 1)];
    });
    return true;
  };
  const show = (cube) => {
    const now = view(cube);
    if (cube.turn === now.turn || (!cube.at && !read(cube))) return;
    cube.turn = now.turn;
    const { bands, width, height } = cube.dataset, band = Math.min(now.band, bands - 1);
    const drawn = band < 0 ? JSON.parse(cube.dataset.colours) : [band, band, band];
    const canvas = cube.querySelector('canvas'), context = canvas.getContext('2d'), image = context.createImageData(+width, +height);
    for (let y = 0, i = 0; y < height; y++) for (let x = 0; x < width; x++, i += 4) {
      drawn.forEach((b, c) => { image.data[i + c] = 255 * (cube.at(b, x, y) - cube.spans[b][0]) / cube.spans[b][1]; });
      image.data[i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    const px = Math.min(width - 1, Math.floor(now.x * width)), py = Math.min(height - 1, Math.floor(now.y * height));
    context.strokeStyle = '#fff';
    context.lineWidth = Math.max(1, width / 96);
    context.strokeRect(px - 0.5 - context.lineWidth, py - 0.5 - context.lineWidth, 2 + 2 * context.lineWidth, 2 + 2 * context.lineWidth);
    const names = JSON.parse(cube.dataset.names), said = band < 0 ? 'colours' : names[band];
    cube.querySelector('.band input').value = band;
    cube.querySelector('.band input').setAttribute('aria-valuetext', said);
    cube.querySelector('.band output').textContent = said;
    const points = [...Array(+bands).keys()].map((b) => `${(240 * b / Math.max(bands - 1, 1)).toFixed(1)},${(68 - 66 * cube.at(b, px, py) / 255).toFixed(1)}`);
    const mark = band < 0 ? '' : `<line x1="${240 * band / Math.max(bands - 1, 1)}" x2="${240 * band / Math.max(bands - 1, 1)}" y1="0" y2="70"/>`;
    cube.querySelector('svg').innerHTML = `${mark}<polyline points="${points.join(' ')}"/>`;
  };
  const change = (cube, what) => {
    const now = view(cube);
    Object.assign(now, what, { turn: now.turn + 1 });
    document.querySelectorAll('.cube[data-bands]').forEach(show);
  };
  setInterval(() => document.querySelectorAll('.cube[data-bands]').forEach((cube) => { if (cube.offsetParent) show(cube); }), TICK);
  const place = (event) => {
    const cube = event.target.closest?.('.cube canvas')?.closest('.cube');
    if (!cube || !event.buttons) return;
    const box = event.target.getBoundingClientRect(), share = (v) => Math.max(0, Math.min(0.999, v));
    change(cube, { x: share((event.clientX - box.left) / box.width), y: share((event.clientY - box.top) / box.height) });
  };
  document.addEventListener('pointerdown', place);
  document.addEventListener('pointermove', place);
  document.addEventListener('input', (event) => {
    const cube = event.target.closest('.cube .band')?.closest('.cube');
    if (cube) change(cube, { band: +event.target.value });
  });
  document.addEventListener('keydown', (event) => {
    const cube = event.target.closest?.('.cube canvas')?.closest('.cube'), way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!cube || !way) return;
    event.preventDefault();
    const now = view(cube), moved = (v, by, n) => Math.max(0, Math.min(0.999, (Math.floor(v * n) + by + 0.5) / n));
    change(cube, { x: moved(now.x, way[0], cube.dataset.width), y: moved(now.y, way[1], cube.dataset.height) });
  });
})();
</script>
"""
