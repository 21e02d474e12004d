"""The look: a Gradio theme of warm paper and ink with one red accent; the rest is assets/style.css."""

from pathlib import Path

import gradio as gr
from gradio.themes.utils import sizes
from gradio.themes.utils.colors import Color

CSS = Path(__file__).resolve().parents[1] / "assets" / "style.css"

ember = Color("#fdf3ef", "#fbe3da", "#f6c5b4", "#f0a086", "#ea7b59", "#e0573a", "#c8432a", "#a63522", "#852c20", "#6c281f", "#3a120c", name="ember")
paper = Color("#faf8f4", "#f3f0ea", "#e6e1d8", "#d3ccc0", "#a59d91", "#7b746a", "#5b554d", "#433e38", "#2b2824", "#1d1b18", "#131210", name="paper")


def theme() -> gr.themes.Base:
    sans = [gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"]
    mono = [gr.themes.LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"]
    return gr.themes.Base(
        primary_hue=ember, secondary_hue=paper, neutral_hue=paper, font=sans, font_mono=mono, radius_size=sizes.radius_md, spacing_size=sizes.spacing_md,
        text_size=sizes.text_sm,
    ).set(
        body_background_fill="*neutral_50", body_background_fill_dark="*neutral_950",
        background_fill_primary="white", background_fill_primary_dark="#1c1a17",
        background_fill_secondary="*neutral_50", background_fill_secondary_dark="#171513",
        block_background_fill="white", block_background_fill_dark="#1c1a17",
        block_border_width="0px", block_shadow="none", block_label_background_fill="transparent", block_label_background_fill_dark="transparent",
        body_text_color_subdued="#6b645b", body_text_color_subdued_dark="*neutral_400", block_label_text_color="#6b645b", block_title_text_color="*neutral_600", block_title_text_color_dark="*neutral_300",
        block_title_text_weight="500", block_info_text_color="#6b645b", block_info_text_size="11px",
        border_color_primary="*neutral_200", border_color_primary_dark="#34302a",
        input_background_fill="*neutral_50", input_background_fill_dark="#131210", input_border_color="*neutral_200", input_border_color_dark="#34302a",
        input_border_color_focus="*primary_400", input_border_color_focus_dark="*primary_500", input_shadow_focus="0 0 0 3px #e0573a22",
        button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700", button_primary_text_color="white",
        button_primary_background_fill_dark="*primary_600", button_primary_background_fill_hover_dark="*primary_700",
        button_secondary_background_fill="white", button_secondary_background_fill_dark="#24211d", button_secondary_border_color="*neutral_200",
        button_secondary_border_color_dark="#3a352f", button_border_width="1px",
        slider_color="*primary_500", slider_color_dark="*primary_500", checkbox_background_color_selected="*primary_500",
        link_text_color="*primary_600", link_text_color_dark="*primary_300",
    )  # fmt: skip


HEAD = """
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' height='32' rx='8' fill='%231d1b18'/%3E%3Ccircle cx='20' cy='16' r='7' fill='%23e0573a'/%3E%3Cg fill='%23f3f0ea'%3E%3Ccircle cx='6' cy='9' r='1.6'/%3E%3Ccircle cx='9' cy='16' r='1.4'/%3E%3Ccircle cx='5' cy='22' r='1.2'/%3E%3Ccircle cx='11' cy='24' r='1'/%3E%3Ccircle cx='12' cy='8' r='1'/%3E%3C/g%3E%3C/svg%3E">
<script>
(() => {
  // A dropdown that is given the focus opens its list, which nobody asked for.
  const focus = (element) => {
    if (!element?.isConnected || document.activeElement !== document.body) return;
    element.focus({ preventScroll: true });
    if (element.getAttribute('role') === 'combobox') element.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true }));
  };
  // A tab that is drawn anew takes the element that had the focus away: its like in the new drawing gets it, else Run.
  let last = null;
  const named = (e) => [e.closest('.arm')?.className.match(/arm-[0-9]/)?.[0], e.closest('.piece') ? 'piece' : '', e.tagName, e.type, e.getAttribute('aria-label') || e.innerText.trim() || e.closest('.block')?.innerText.split('\\n')[0]].join('|');
  document.addEventListener('focusin', (event) => { const bench = event.target.closest('.bench'); last = bench && { element: event.target, name: named(event.target), tab: bench.closest('[role=tabpanel]') }; });
  new MutationObserver(() => {
    if (!last || last.element.isConnected) return;
    const bench = last.tab?.querySelector('.bench');
    if (!bench?.querySelector('button.run')) return;
    const { name } = last, like = [...bench.querySelectorAll('button, input, textarea')].find((e) => named(e) === name);
    last = null;
    setTimeout(() => focus(like ?? bench.querySelector('button.run')), 50);
  }).observe(document, { childList: true, subtree: true });
  const press = (kind) => {
    const button = [...document.querySelectorAll('button.' + kind)].find((b) => b.offsetParent !== null);
    const busy = kind === 'run' && (document.body.matches('.out-of-reach') || button?.closest('.bench')?.querySelector('.message .running'));
    if (button && !busy) button.click();
    return Boolean(button);
  };
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      const held = document.activeElement;
      if (held && held.blur) { held.dispatchEvent(new Event('change', { bubbles: true })); held.blur(); }
      setTimeout(() => { press('run'); focus(held); }, 30);
      event.preventDefault();
    } else if (event.key === 'Escape' && event.isTrusted) press('stop');
  }, true);
  // The address names the run that is seen, so that a page that is loaded again shows it again.
  let address_of = '';
  setInterval(() => {
    const bench = [...document.querySelectorAll('.bench')].find((b) => b.offsetParent), run = bench?.querySelector('.message [data-run]')?.dataset.run ?? '';
    if (run === address_of || !bench) return;
    const address = new URL(location.href);
    run ? address.searchParams.set('run', run) : address.searchParams.delete('run');
    history.replaceState(null, '', address);
    address_of = run;
  }, 200);
  // On a narrow page the arms stand under the panel: Run takes the eye there.
  document.addEventListener('click', (event) => {
    const bench = event.target.closest('button.run') && event.target.closest('.bench');
    if (bench && window.innerWidth <= 900) setTimeout(() => bench.querySelector('.stage').scrollIntoView({ behavior: 'smooth' }), 200);
  }, true);
  // The scrubber under a grid of tokens: its steps stand in the slider, as [number, [[piece, confidence, mark], …]].
  document.addEventListener('input', (event) => {
    if (!event.target.matches('.scrub input')) return;
    const steps = event.target.steps || (event.target.steps = JSON.parse(event.target.dataset.steps));
    const [number, cells] = steps[Number(event.target.value)];
    const grid = event.target.closest('.tokens').querySelector('.grid');
    cells.forEach(([piece, sure, mark], i) => {
      const cell = grid.children[i];
      cell.className = mark;
      cell.textContent = piece;
      cell.title = Math.round(100 * sure) + '%';
      cell.style.setProperty('--c', sure);
    });
    const answer = event.target.closest('.main')?.querySelector('.answer');
    if (answer) answer.textContent = cells.map(([piece, , mark]) => (mark === 'm' ? '…' : piece === '∎' ? '' : piece.replaceAll('\u00b7', ' ').replaceAll('\u21b5', '\\n'))).join('').replace(/…+/g, '…');
    event.target.nextElementSibling.textContent = `step ${number}/${steps[steps.length - 1][0]}`;
  });
  // A file dropped anywhere but on the box of a picture, sound or object is a result or a recipe.
  const outside = (event) => !event.target.closest('.image-container, .upload-container, [data-testid="image"], .image-frame, .sound-field, button.center');
  document.addEventListener('dragover', (event) => { if (outside(event)) event.preventDefault(); });
  document.addEventListener('drop', (event) => {
    const field = event.target.closest('.shape-field');
    const input = field ? field.querySelector('input[type=file]') : document.querySelector('input[data-testid$="recipe-upload-button"]');
    if (!input || !outside(event) || !event.dataTransfer.files.length) return;
    event.preventDefault();
    const files = new DataTransfer();
    files.items.add(event.dataTransfer.files[0]);
    input.files = files.files;
    input.dispatchEvent(new Event('change', { bubbles: true }));
  });
})();
</script>
"""
