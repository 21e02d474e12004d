"""Sounds on the page: where one is given, how it is drawn and played, and the switch between the arms.

Gradio serves the files from its cache; the script that moves the markers and switches is at the end.
"""

import json
import math
from html import escape
from pathlib import Path
from urllib.parse import quote

import gradio as gr
import numpy as np
import PIL.Image
from gradio import processing_utils, utils

from backends import colours, inputs, recipe, sound
from backends.spec import Audio, Spectrogram
from ui import inline, toast
from ui.reading import EVENT, anew, read

COLUMNS = 240  # of a drawn wave
MATCH_DB = 30.0  # at most this much is taken from a loud arm to match a quiet one
PALETTE = colours.warm(np.linspace(0, 1, 256)).tobytes()


# --- where a sound is given ------------------------------------------------------------------------------


class Upload(gr.Audio):
    """A gr.Audio whose value is the file's Path, not decoded: inputs.sound refuses on the page what it refuses in the API."""

    is_template = True  # for Gradio: drawn as its parent

    def preprocess(self, payload) -> Path | None:
        return payload and Path(payload.path)


def field(what: str, label: str, help: str, longest: float, value: Audio | None) -> Upload:
    said = f"{label} · up to {longest:.10g} s"
    shown = saved(recipe.flac(value), f"{what}.flac") if value is not None else None
    made = Upload(
        shown, label=said, sources=["upload", "microphone"], interactive=True, buttons=[], editable=False, elem_classes=["sound-field"],
        waveform_options=gr.WaveformOptions(waveform_color="#a59d91", waveform_progress_color="#e0573a", show_recording_waveform=True),
        **anew(),
    )  # fmt: skip
    if help:
        gr.HTML(f'<p class="field-help">{escape(help)}</p>')
    gr.on([made.upload, made.stop_recording], lambda path: taken(path, what, longest), made, made, **EVENT)
    return made


def taken(path: Path | None, what: str, longest: float):
    """Leave an upload where it is, or take it away with a warning that says why."""
    if path is None:
        return gr.skip()
    heard = read(lambda path, what: inputs.sound(path, what, longest), path, what, "Sound")
    if heard is not None and not heard.samples.any():
        toast.info(f"{what} is silent.", title="Taken, but")
    return None if heard is None else gr.skip()


def of_another() -> None:
    """The sound to which this one belongs was taken away: with another, the figures would be taken against the wrong one."""
    return None


# --- how it is drawn -------------------------------------------------------------------------------------


def saved(data: bytes, name: str) -> str:
    """The path of a file that Gradio serves."""
    return processing_utils.save_bytes_to_cache(data, name, utils.get_upload_folder())


def file(value: Audio) -> str:
    return saved(recipe.flac(value), "sound.flac")


def url(path: str) -> str:
    return f"gradio_api/file={quote(path)}"


def audio(value: Audio, path: str | None = None, facts: bool = True) -> str:
    """Wave and mel spectrogram under one marker; with a player when there is a file to play. `facts`: whether it says what it is and gives the file."""
    wave = f'<div class="track wave">{_wave(value.samples)}{_marks(value)}<i class="head"></i></div>'
    player = f'<audio controls preload="metadata" src="{escape(url(path))}"></audio>' if path else ""
    take = f'<a href="{escape(url(path))}" download="{escape(Path(path).name)}">FLAC</a>' if path else ""
    said = f"{value.caption} · " if value.caption else ""
    caption = f"<figcaption>{escape(said)}{value.seconds:.2f} s · {value.rate / 1000:g} kHz{take}</figcaption>" if facts else ""
    return f'<figure class="sound">{caption}{wave}{_map(sound.log_mel(value))}{_ruler(value.seconds)}{player}</figure>'


def spectrogram(value: Spectrogram) -> str:
    caption = f"<figcaption>{escape(value.caption)}</figcaption>" if value.caption else ""
    return f'<figure class="sound">{caption}{_map(value)}{_ruler(value.seconds)}</figure>'


def _wave(samples: np.ndarray) -> str:
    """The wave as one shape: above the highest, below the lowest sample of each column."""
    columns = [c for c in np.array_split(np.nan_to_num(samples), min(COLUMNS, len(samples))) if len(c)]
    high = [f"{i},{1 - max(float(c.max()), 0.004):.3f}" for i, c in enumerate(columns)]
    low = [f"{i},{1 - min(float(c.min()), -0.004):.3f}" for i, c in enumerate(columns)]
    return (
        f'<svg viewBox="0 0 {max(1, len(columns) - 1)} 2" preserveAspectRatio="none" aria-hidden="true"><polygon points="{" ".join(high + low[::-1])}"/></svg>'
    )


def _marks(value: Audio) -> str:
    places = {label: 100 * at / value.seconds for label, at in value.marks.items() if 0 <= at <= value.seconds}
    return "".join(f'<b{" class=left" if at > 60 else ""} style="--p:{at / 100:.4f}"><span>{escape(label)}</span></b>' for label, at in places.items())


def _map(value: Spectrogram) -> str:
    ticks = [f for f in (250, 500, 1000, 2000, 4000, 8000, 16000, 32000) if f < 0.93 * value.top] if value.mel else []
    if not value.mel:
        step = next(s for s in (500, 1000, 2000, 5000, 10000, 20000, math.inf) if value.top / s <= 5)
        ticks = [i * step for i in range(1, 6) if i * step < 0.96 * value.top]
    scale = _mel if value.mel else float
    places = [(f, 100 * scale(f) / scale(value.top)) for f in ticks]
    spaced = [(f, at) for f, at in places if not value.mel or f >= 1000 or at >= 12]
    marks = "".join(f'<span style="--p:{at / 100:.3f}">{f / 1000:g}{" kHz" if f == spaced[-1][0] else ""}</span>' for f, at in spaced)
    return f'<div class="track map" tabindex="0" role="group" aria-label="spectrogram; plus and minus enlarge it, arrows move it, Home resets"><img alt="spectrogram" src="{_image(value.values)}">{marks}<i class="head"></i></div>'


def _mel(hertz: float) -> float:
    """Slaney's scale: even in Hz up to 1000, then even in pitch."""
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def _image(values: np.ndarray) -> str:
    """Inline PNG with the palette."""
    picture = PIL.Image.fromarray((255 * sound.shades(values)).astype(np.uint8), "L")
    picture = picture.resize((min(480, max(240, picture.width)), 96), PIL.Image.BILINEAR).convert("P")
    picture.putpalette(PALETTE)
    return inline.data_uri(picture, compress_level=4)


def _ruler(seconds: float) -> str:
    step = next((s for s in (0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60) if seconds / s <= 6), 300)
    ticks = [i * step for i in range(int(seconds / step + 1e-6) + 1)]
    return '<div class="ruler">' + "".join(f'<span style="--p:{t / seconds:.3f}">{t:g}{" s" if t == ticks[-1] else ""}</span>' for t in ticks) + "</div>"


# --- the switch between arms -----------------------------------------------------------------------------


Track = tuple[str, int, float, float, str]  # title, arm or −1, loudness in dB, seconds, path


def track(title: str, arm: int, value: Audio, path: str) -> Track:
    return title, arm, sound.loudness(value), value.seconds, path


def switch(tracks: list[Track]) -> str:
    """One player for all: they run together, and the chosen one is heard.

    Louder ones are turned down to the quietest, so that the louder does not win by being louder.
    """
    if len(tracks) < 2:
        return ""
    levels = [level for _, _, level, _, _ in tracks]
    quiet = min((v for v in levels if math.isfinite(v)), default=0.0)
    gains = [10 ** (max(quiet - v, -MATCH_DB) / 20) if math.isfinite(v) else 1.0 for v in levels]
    data = json.dumps([{"src": url(path), "gain": round(g, 4), "arm": arm + 1} for (_, arm, _, _, path), g in zip(tracks, gains)])
    chosen = next((i for i, t in enumerate(tracks) if t[1] >= 0), 0)
    buttons = "".join(
        f'<button role="radio" aria-checked="{str(i == chosen).lower()}" class="arm-{arm + 1}"><i></i>{escape(title)}</button>'
        for i, (title, arm, *_) in enumerate(tracks)
    )
    longest = max(seconds for _, _, _, seconds, _ in tracks)
    return (
        f'<div class="switch" data-tracks="{escape(data)}" data-seconds="{longest:.4f}"><div class="transport">'
        f'<button class="play" aria-label="play or pause"></button><input type="range" min="0" max="1000" value="0" aria-label="position"><output>0.0 / {longest:.1f} s</output>'
        f'<label title="Louder arms are turned down to the quietest"><input type="checkbox" checked> same loudness</label></div>'
        f'<div class="tracks" role="radiogroup" aria-label="which one is heard">{buttons}</div></div>'
    )


SCRIPT = """
<script>
(() => {
  // The marker over wave and spectrogram follows the player; a click there moves it.
  const at = (figure, share) => figure && figure.style.setProperty('--at', share || 0);
  const follow = (player) => {
    at(player.closest('.sound'), player.currentTime / player.duration);
    if (!player.paused && player.isConnected) requestAnimationFrame(() => follow(player));
  };
  for (const kind of ['play', 'seeked', 'ended']) document.addEventListener(kind, (event) => {
    const player = event.target;
    if (!player.matches || !player.matches('.sound audio')) return;
    if (kind === 'play') {
      document.querySelectorAll('.sound audio').forEach((other) => other !== player && other.pause());
      document.querySelectorAll('.switch').forEach(pause);
    }
    follow(player);
  }, true);

  // The switch: all tracks run together through Web Audio and gains decide which one is heard, so that the place is kept to the sample.
  const state = new WeakMap();
  const loaded = (box) => {
    if (!state.has(box)) {
      const tracks = JSON.parse(box.dataset.tracks), context = new AudioContext();
      const gains = tracks.map(() => { const node = context.createGain(); node.gain.value = 0; node.connect(context.destination); return node; });
      const buffers = Promise.all(tracks.map((t) => fetch(t.src).then((r) => r.arrayBuffer()).then((b) => context.decodeAudioData(b))));
      state.set(box, { tracks, context, gains, buffers, sources: [], offset: 0, started: null });
    }
    return state.get(box);
  };
  const chosen = (box) => [...box.querySelectorAll('.tracks button')].findIndex((b) => b.getAttribute('aria-checked') === 'true');
  const level = (box) => {
    const now = loaded(box), match = box.querySelector('input[type=checkbox]').checked, i = chosen(box);
    now.gains.forEach((g, k) => g.gain.setTargetAtTime(k === i ? (match ? now.tracks[k].gain : 1) : 0, now.context.currentTime, 0.008));
  };
  const place = (box) => {
    const now = state.get(box);
    return now ? (now.started === null ? now.offset : now.context.currentTime - now.started) : 0;
  };
  const show = (box) => {
    const total = Number(box.dataset.seconds), seconds = Math.min(place(box), total);
    box.querySelector('input[type=range]').value = 1000 * seconds / total;
    box.querySelector('output').textContent = `${seconds.toFixed(1)} / ${total.toFixed(1)} s`;
    const stage = box.closest('.stage');
    if (stage) loaded(box).tracks.forEach((t) => t.arm && at(stage.querySelector(`.arm-${t.arm} .main .sound`), seconds / total));
  };
  const pause = (box) => {
    const now = state.get(box);
    if (!now || now.started === null) return;
    now.offset = place(box);
    now.started = null;
    now.sources.forEach((s) => s.stop());
    box.querySelector('.play').classList.remove('on');
  };
  const play = async (box) => {
    const now = loaded(box);
    document.querySelectorAll('.sound audio').forEach((other) => other.pause());
    document.querySelectorAll('.switch').forEach((other) => other !== box && pause(other));
    await now.context.resume();
    const buffers = await now.buffers;
    if (now.started !== null) return;
    if (now.offset >= Number(box.dataset.seconds) - 0.02) now.offset = 0;
    now.sources = buffers.map((buffer, i) => {
      const source = now.context.createBufferSource();
      source.buffer = buffer;
      source.connect(now.gains[i]);
      source.start(0, now.offset);
      return source;
    });
    now.started = now.context.currentTime - now.offset;
    level(box);
    box.querySelector('.play').classList.add('on');
    const step = () => {
      if (now.started === null) return;
      if (!box.isConnected || box.offsetParent === null || place(box) >= Number(box.dataset.seconds)) pause(box);
      show(box);
      requestAnimationFrame(step);
    };
    step();
  };
  document.addEventListener('click', (event) => {
    const track = event.target.closest('.sound .track'), button = event.target.closest('.switch button');
    if (track) {
      const player = track.closest('.sound').querySelector('audio'), area = track.getBoundingClientRect();
      const seen = getComputedStyle(track), z = Number(seen.getPropertyValue('--sz')) || 1, x = Number(seen.getPropertyValue('--sx')) || 0.5; // see zoom.py
      if (player && player.duration) player.currentTime = player.duration * (x + ((event.clientX - area.left) / area.width - 0.5) / z);
    }
    if (!button) return;
    const box = button.closest('.switch');
    if (button.matches('.play')) return state.get(box)?.started != null ? pause(box) : play(box);
    box.querySelectorAll('.tracks button').forEach((b) => b.setAttribute('aria-checked', b === button));
    level(box);
  });
  document.addEventListener('input', (event) => {
    const box = event.target.closest('.switch');
    if (!box) return;
    if (event.target.type === 'checkbox') return level(box);
    const now = loaded(box), running = now.started !== null;
    pause(box);
    now.offset = Number(box.dataset.seconds) * event.target.value / 1000;
    running ? play(box) : show(box);
  });
})();
</script>
"""
