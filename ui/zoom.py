"""Zoom and pan that all arms of a comparison share: pictures (with the difference map) and, apart from them, sounds' waves and spectrograms.

The place lies in variables of the tab's stage, from which style.css moves whatever picture stands there: a preview that comes later stands in it too.
The slider between two arms keeps Gradio's own zoom.
"""

SCRIPT = """
<script>
(() => {
  // z: how far, 1 is whole; x, y: which place of the picture is in the middle, 0 to 1.
  const PICTURE = '.arms .image-frame, .pair .image-frame, .ballot .seen', SOUND = '.stage .sound .track', MOST = 32, FAR = 4;
  const places = new WeakMap(); // stage -> {p, s}
  const place = (frame) => {
    const stage = frame.closest('.stage');
    if (!places.has(stage)) places.set(stage, { p: { z: 1, x: 0.5, y: 0.5 }, s: { z: 1, x: 0.5, y: 0.5 } });
    return places.get(stage)[kind(frame)];
  };
  const kind = (frame) => frame.matches('.track') ? 's' : 'p';
  const frameOf = (target) => {
    if (!target?.closest) return null;
    const found = target.closest(PICTURE + ',' + SOUND) ?? target.closest('.arms .picture button, .pair .picture button')?.querySelector('.image-frame');
    return found?.closest('.stage') ? found : null;
  };
  // A picture fills its frame in one direction: --w and --h are the shares that it takes of it.
  const fit = (image) => {
    const { clientWidth: w, clientHeight: h, naturalWidth: nw, naturalHeight: nh } = image;
    if (!w || !h || !nw || !nh) return;
    const scale = Math.min(w / nw, h / nh);
    image.style.setProperty('--w', nw * scale / w);
    image.style.setProperty('--h', nh * scale / h);
  };
  const fitAll = () => document.querySelectorAll(PICTURE).forEach((frame) => frame.querySelectorAll('img').forEach(fit));
  const size = (frame) => {
    const image = frame.matches('.track') ? null : frame.querySelector('img'), box = frame.getBoundingClientRect();
    const share = (name) => Number(image?.style.getPropertyValue(name)) || 1;
    return { left: box.left + box.width / 2, top: box.top + box.height / 2, w: box.width * share('--w'), h: box.height * share('--h') };
  };
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const show = (frame) => {
    const now = place(frame), k = kind(frame), stage = frame.closest('.stage');
    now.z = clamp(now.z, 1, MOST);
    for (const axis of ['x', 'y']) now[axis] = clamp(now[axis], 0.5 / now.z, 1 - 0.5 / now.z);
    for (const name of ['z', 'x', 'y']) stage.style.setProperty(`--${k}${name}`, now[name]);
    stage.style.setProperty(`--${k}said`, `"×${now.z < 10 ? now.z.toFixed(1) : Math.round(now.z)}"`);
    stage.toggleAttribute(k === 'p' ? 'data-zoomed' : 'data-stretched', now.z > 1);
    if (k === 'p') stage.toggleAttribute('data-far', now.z >= FAR);
    fitAll();
  };
  // Enlarge by a factor about a place of the screen, which stays where it is.
  const zoom = (frame, by, at) => {
    const now = place(frame), box = size(frame), before = now.z;
    now.z = clamp(before * by, 1, MOST);
    if (at) {
      now.x += (at.x - box.left) / box.w * (1 / before - 1 / now.z);
      now.y += (at.y - box.top) / box.h * (1 / before - 1 / now.z);
    }
    show(frame);
  };
  const move = (frame, dx, dy) => {
    const now = place(frame), box = size(frame);
    now.x -= dx / (box.w * now.z);
    now.y -= dy / (box.h * now.z);
    show(frame);
  };
  const reset = (frame) => { Object.assign(place(frame), { z: 1, x: 0.5, y: 0.5 }); show(frame); };

  // The wheel enlarges, unless the page is being scrolled past the picture; at the whole picture it scrolls on.
  let scrolled = -1e9;
  document.addEventListener('scroll', () => { scrolled = performance.now(); }, { capture: true, passive: true });
  document.addEventListener('wheel', (event) => {
    const frame = frameOf(event.target);
    if (!frame || (!event.ctrlKey && performance.now() - scrolled < 300) || (place(frame).z === 1 && event.deltaY > 0)) return;
    event.preventDefault();
    zoom(frame, Math.exp(-clamp(event.deltaY, -120, 120) * (event.ctrlKey ? 0.01 : 0.002)), { x: event.clientX, y: event.clientY });
  }, { passive: false });

  // One finger or the mouse moves what is enlarged, two fingers enlarge.
  const down = new Map(); // pointer -> where it is
  let held = null, moved = 0;
  document.addEventListener('pointerdown', (event) => {
    const frame = frameOf(event.target);
    if (!frame || event.button > 0) return;
    if (held !== frame) down.clear();
    held = frame;
    down.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (down.size === 1) moved = 0;
  });
  document.addEventListener('pointermove', (event) => {
    const last = down.get(event.pointerId);
    if (!held || !last) return;
    const now = { x: event.clientX, y: event.clientY }, other = [...down].find(([id]) => id !== event.pointerId)?.[1];
    down.set(event.pointerId, now);
    moved += Math.abs(now.x - last.x) + Math.abs(now.y - last.y);
    if (other) {
      const apart = (a, b) => Math.hypot(a.x - b.x, a.y - b.y) || 1;
      zoom(held, apart(now, other) / apart(last, other), { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
      move(held, (now.x - last.x) / 2, (now.y - last.y) / 2);
    } else if (place(held).z > 1) move(held, now.x - last.x, now.y - last.y);
  });
  for (const end of ['pointerup', 'pointercancel']) document.addEventListener(end, (event) => { down.delete(event.pointerId); if (!down.size) held = null; });
  document.addEventListener('dragstart', (event) => { const frame = frameOf(event.target); if (frame && place(frame).z > 1) event.preventDefault(); });
  document.addEventListener('click', (event) => { // what moved a picture is no press on it
    if (moved > 6 && frameOf(event.target)) { event.stopPropagation(); event.preventDefault(); }
    moved = 0;
  }, true);
  document.addEventListener('dblclick', (event) => { const frame = frameOf(event.target); if (frame) reset(frame); });

  const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  document.addEventListener('keydown', (event) => {
    const frame = event.ctrlKey || event.metaKey || event.altKey ? null : frameOf(event.target);
    if (!frame) return;
    const way = ARROWS[event.key], by = { '+': 1.5, '=': 1.5, '-': 1 / 1.5, '_': 1 / 1.5 }[event.key];
    if (by) zoom(frame, by);
    else if (way && place(frame).z > 1) move(frame, ...way.map((v, i) => v * 0.15 * frame[i ? 'clientHeight' : 'clientWidth']));
    else if (event.key === 'Home' || (event.key === '0' && !frame.closest('.ballot'))) reset(frame); // on a ballot 0 is a vote
    else return;
    event.preventDefault();
  });

  document.addEventListener('load', (event) => { if (event.target.matches?.('img') && frameOf(event.target)) fit(event.target); }, true);
  for (const change of ['resize', 'fullscreenchange']) window.addEventListener(change, () => setTimeout(fitAll, 100));
})();
</script>
"""
