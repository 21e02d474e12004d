"""When the studio is out of reach, or was started anew under an open page: a bar says so, and the page comes back to what it showed.

Gradio loads the page anew once the server answers where one of its streams breaks. It doesn't hear one that ends without an error or falls silent, as behind a
proxy or on a train, and of a studio that was started anew it hears when something is pressed, which is lost then. A run sends something every running.BEAT
seconds: a page that shows one and is told nothing is cut off. The address names the run (theme.py), so loading the page anew shows it again.
"""

from ui.running import BEAT

SCRIPT = """
<script>
(() => {
  const LOOK = @LOOK@, IDLE = 6, SILENT = 6, AFTER = 3;  // ms between two looks; every how many of them an idle page asks; how many without a word a run may have, and after a loss
  const own = () => window.gradio_config?.app_id;
  const running = () => document.querySelectorAll('.message .running:is([data-run], [data-beat])').length;  // what the studio said, not what a press did
  const asked = async () => {  // the studio's name; none where it doesn't answer
    try {
      const answer = await fetch('gradio_api/app_id', { cache: 'no-store', signal: AbortSignal.timeout(8000) });
      return answer.ok ? (await answer.json()).app_id : undefined;
    } catch { return undefined; }
  };
  let bar = null, lost = false, looks = 0, silent = 0, busy = false, told = false;
  const say = (words, reload) => {
    if (bar?.firstChild.data === words) return;
    bar?.remove();
    bar = words ? Object.assign(document.createElement('div'), { className: 'lost' }) : null;
    document.body.classList.toggle('out-of-reach', Boolean(bar));
    if (!bar) return;
    bar.setAttribute('role', 'alert');
    bar.append(words);
    if (reload) bar.append(Object.assign(document.createElement('button'), { textContent: 'Reload', onclick: () => location.reload() }));
    document.body.append(bar);
  };
  new MutationObserver((changes) => { told ||= changes.some(({ target }) => (target.closest ? target : target.parentElement)?.closest('.bench')); })
    .observe(document, { childList: true, subtree: true, characterData: true });
  const look = async (now) => {
    if (busy || !own()) return;
    const runs = running();
    silent = runs && !told ? silent + 1 : 0;
    looks += 1;
    if (!now && !lost && silent < 2 && looks % IDLE) { told = false; return; }
    busy = true;
    const id = await asked();
    busy = false;
    if (id === undefined) {
      lost = true;
      say('No connection to the studio. What runs there goes on; this page tries again by itself and then shows it.');
    } else if (id !== own()) {
      if (runs) return location.reload();
      say('The studio was started anew. What has ended is under “My runs”. Copy what you have written and want to keep, then load this page again.', true);
    } else if (silent >= (lost ? AFTER : SILENT)) {
      return location.reload();
    } else {
      lost = lost && silent > 0;
      say('');
    }
    told = false;
  };
  setInterval(() => look(false), LOOK);
  for (const sign of ['online', 'offline']) addEventListener(sign, () => look(true));
  document.addEventListener('visibilitychange', () => document.hidden || look(true));
})();
</script>
""".replace("@LOOK@", f"{1000 * BEAT:.0f}")
