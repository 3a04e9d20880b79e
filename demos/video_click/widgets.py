"""The picture, the waveform and the player: fixed HTML, and JavaScript that fills it from the component's value.

Each can be used by keyboard, and none of them makes markup of what it is given.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

# Values travel as JSON text. The HTML itself never changes, so the focus stays where it is.
_VALUE = "const value = () => { try { return JSON.parse(props.value || 'null'); } catch { return null; } };\n"

# Said when it changes; while a bar moves, only its end is.
STATUS_JS = """
element.setAttribute('aria-live', 'polite');
element.setAttribute('aria-atomic', 'true');
watch('value', () => element.setAttribute('aria-busy', String(!!element.querySelector('progress'))));
"""

PICTURE_HTML = """
<div class="vc-picture" hidden>
  <div class="vc-frame" tabindex="0" role="application" aria-roledescription="picture to click on"
       aria-label="Picture of the film. Arrow keys move the cross, Enter sets a point there.">
    <img alt="" draggable="false">
    <div class="vc-cross" hidden></div>
  </div>
  <p class="vc-said" aria-live="polite"></p>
</div>
"""

PICTURE_JS = _VALUE + """
const q = (name) => element.querySelector(name);
let x = 0.5, y = 0.5;
const show = () => {
  const v = value();
  q('.vc-picture').hidden = !v;
  if (!v) return;
  if (q('img').getAttribute('src') !== v.src) q('img').src = v.src;
  q('img').alt = v.alt;
  q('.vc-said').textContent = v.said;
};
const move = () => {
  const cross = q('.vc-cross');
  cross.hidden = false;
  cross.style.left = 100 * x + '%';
  cross.style.top = 100 * y + '%';
};
element.addEventListener('click', (event) => {
  if (!event.target.closest('.vc-frame')) return;
  const box = q('img').getBoundingClientRect();
  x = Math.min(0.9999, Math.max(0, (event.clientX - box.left) / box.width));
  y = Math.min(0.9999, Math.max(0, (event.clientY - box.top) / box.height));
  q('.vc-cross').hidden = true;
  trigger('point', {x, y});
});
element.addEventListener('keydown', (event) => {
  if (!event.target.closest('.vc-frame')) return;
  const step = event.shiftKey ? 0.1 : 0.01;
  const by = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
  if (by) {
    x = Math.min(0.9999, Math.max(0, x + step * by[0]));
    y = Math.min(0.9999, Math.max(0, y + step * by[1]));
    move();
  } else if (event.key === 'Enter' || event.key === ' ') {
    move();
    trigger('point', {x, y});
  } else return;
  event.preventDefault();
});
// A film from a phone held upright shall not be taller than the window.
const fit = () => {
  const img = q('img');
  if (img.naturalHeight) q('.vc-frame').style.setProperty('--ratio', img.naturalWidth / img.naturalHeight);
};
q('img').addEventListener('load', fit);
watch('value', show);
show();
"""

WAVE_HTML = """
<div class="vc-wave" hidden>
  <svg viewBox="0 0 600 80" preserveAspectRatio="none" role="img" aria-label="">
    <rect class="vc-span" y="0" height="80" x="0" width="0"></rect>
    <path d=""></path>
  </svg>
  <p>Drag over the waveform to say when the sound happens, or type the times.</p>
</div>
"""

WAVE_JS = _VALUE + """
const q = (name) => element.querySelector(name);
let from = null, drawn = null;
const mark = (a, b) => {
  const v = value();
  const rect = q('rect');
  const ok = v && a !== null && b !== null && b > a;
  rect.setAttribute('x', ok ? 600 * a / v.seconds : 0);
  rect.setAttribute('width', ok ? Math.max(1, 600 * (b - a) / v.seconds) : 0);
};
const show = () => {
  const v = value();
  q('.vc-wave').hidden = !v;
  if (!v) return;
  q('svg').setAttribute('aria-label', v.alt);
  if (drawn !== v.path) q('path').setAttribute('d', drawn = v.path);
  mark(v.start, v.end);
};
const at = (event) => {
  const box = q('svg').getBoundingClientRect();
  return value().seconds * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
};
element.addEventListener('pointerdown', (event) => {
  if (!event.target.closest('svg')) return;
  from = at(event);
  q('svg').setPointerCapture(event.pointerId);
  event.preventDefault();
});
element.addEventListener('pointermove', (event) => {
  if (from !== null) mark(Math.min(from, at(event)), Math.max(from, at(event)));
});
element.addEventListener('pointerup', (event) => {
  if (from === null) return;
  const to = at(event), a = Math.min(from, to), b = Math.max(from, to);
  from = null;
  if (b - a < 0.05) { mark(null, null); trigger('span', {start: null, end: null}); }
  else trigger('span', {start: Math.round(100 * a) / 100, end: Math.round(100 * b) / 100});
});
element.addEventListener('pointercancel', () => { from = null; show(); });
watch('value', show);
show();
"""

PLAYER_HTML = """
<div class="vc-player" role="group" aria-label="Player" hidden>
  <video muted playsinline preload="auto" tabindex="-1" aria-label="The film, without its own sound" hidden></video>
  <div class="vc-sounds"></div>
  <fieldset><legend>Listen to</legend><span class="vc-which"></span></fieldset>
  <div class="vc-row">
    <button type="button" class="vc-play" aria-label="Play">&#9654; Play</button>
    <input type="range" min="0" max="1" step="0.01" value="0" aria-label="Position in seconds">
    <span class="vc-time">0.0 s</span>
  </div>
  <svg class="vc-spans" viewBox="0 0 600 10" preserveAspectRatio="none" role="img" aria-label=""></svg>
  <p class="vc-trouble" role="alert" hidden></p>
</div>
"""

# One audio element per sound, all playing, all but one muted: switching is instant and keeps the place. What is
# listened to leads; the others and the picture are pulled along when they stray.
PLAYER_JS = _VALUE + """
const q = (name) => element.querySelector(name);
const all = () => [...element.querySelectorAll('audio')];
let v = null, led = 'target', playing = false;
const lead = () => all().find((a) => a.dataset.key === led);
const film = () => q('video');
const picture = (seconds) => seconds + v.start;
const tell = () => {
  const a = lead();
  if (!a) return;
  q('input[type=range]').value = a.currentTime;
  q('.vc-time').textContent = a.currentTime.toFixed(1) + ' of ' + v.seconds.toFixed(1) + ' s';
  q('input[type=range]').setAttribute('aria-valuetext', a.currentTime.toFixed(1) + ' seconds');
};
const button = () => {
  q('.vc-play').textContent = playing ? '\\u23f8 Pause' : '\\u25b6 Play';
  q('.vc-play').setAttribute('aria-label', playing ? 'Pause' : 'Play');
};
const align = (seconds, slack) => {
  for (const a of all()) if (Math.abs(a.currentTime - seconds) > slack) a.currentTime = seconds;
  if (!film().hidden && Math.abs(film().currentTime - picture(seconds)) > Math.max(slack, 0.12))
    film().currentTime = picture(seconds);
};
const halt = () => {
  playing = false;
  all().forEach((a) => a.pause());
  film().pause();
  button();
};
const run = async () => {
  const a = lead();
  if (!a) return;
  if (a.ended || a.currentTime > v.seconds - 0.05) align(0, 0);
  align(lead().currentTime, 0.01);
  playing = true;
  button();
  try {
    const starts = all().map((one) => one.play());
    if (!film().hidden) film().play().catch(() => {});
    await Promise.all(starts);
  } catch (error) {
    if (error.name === 'AbortError') return;
    halt();
    q('.vc-trouble').textContent = 'This browser cannot play the sound (' + error.name + '); download it instead.';
    q('.vc-trouble').hidden = false;
  }
};
const listen = (key) => {
  const seconds = lead() ? lead().currentTime : 0;
  led = key;
  all().forEach((a) => { a.muted = a.dataset.key !== key; });
  align(seconds, 0.03);
};
const show = () => {
  halt();
  v = value();
  q('.vc-player').hidden = !v;
  q('.vc-trouble').hidden = true;
  q('.vc-sounds').replaceChildren();
  q('.vc-which').replaceChildren();
  if (!v) { film().removeAttribute('src'); film().hidden = true; return; }
  if (!v.tracks.some((t) => t.key === led)) led = v.tracks[0].key;
  for (const t of v.tracks) {
    const a = document.createElement('audio');
    a.preload = 'auto'; a.src = t.url; a.dataset.key = t.key; a.muted = t.key !== led;
    a.addEventListener('timeupdate', () => {
      if (t.key !== led) return;
      tell();
      if (playing) align(a.currentTime, 0.08);
    });
    a.addEventListener('ended', () => { if (t.key === led) halt(); });
    q('.vc-sounds').append(a);
    const label = document.createElement('label'), radio = document.createElement('input');
    radio.type = 'radio'; radio.name = 'vc-listen'; radio.value = t.key; radio.checked = t.key === led;
    radio.addEventListener('change', () => listen(t.key));
    label.append(radio, ' ' + t.label);
    q('.vc-which').append(label);
  }
  film().hidden = !v.film;
  if (v.film && film().getAttribute('src') !== v.film) film().src = v.film;
  q('input[type=range]').max = v.seconds;
  const spans = q('.vc-spans');
  spans.replaceChildren();
  spans.setAttribute('aria-label', v.alt);
  for (const [start, end] of v.spans) {
    const rect = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
    rect.setAttribute('x', 600 * start / v.seconds);
    rect.setAttribute('width', Math.max(1, 600 * (end - start) / v.seconds));
    rect.setAttribute('height', 10);
    spans.append(rect);
  }
  tell();
};
film().addEventListener('error', () => { film().hidden = true; });
q('.vc-play').addEventListener('click', () => (playing ? halt() : run()));
q('input[type=range]').addEventListener('input', (event) => { align(Number(event.target.value), 0); tell(); });
watch('value', show);
show();
"""

CSS = """
/* Hidden overflow would keep what shall stay at the top of the window from doing so. */
.gradio-container { width: 100%; max-width: 1100px !important; margin: 0 auto; overflow: clip !important; }
#status { position: sticky; top: 0; z-index: 20; background: var(--body-background-fill) !important; }
.vc-frame { position: relative; width: min(100%, 760px, 75vh * var(--ratio, 1.5)); cursor: crosshair; line-height: 0;
  touch-action: manipulation; }
.vc-frame img { width: 100%; height: auto; margin: 0; border-radius: 6px; user-select: none; }
.vc-frame:focus-visible, .vc-player button:focus-visible { outline: 3px solid #2f6fed; outline-offset: 2px; }
.vc-cross { position: absolute; width: 26px; height: 26px; margin: -13px 0 0 -13px; border: 2px solid #fff;
  border-radius: 50%; box-shadow: 0 0 0 2px #000; pointer-events: none; }
.vc-wave svg { width: 100%; height: 90px; background: #10151f; border-radius: 6px; touch-action: pan-y;
  cursor: col-resize; }
.vc-wave path { stroke: #7fb4ff; stroke-width: 1; vector-effect: non-scaling-stroke; fill: none; }
.vc-wave .vc-span { fill: #f2a33a; opacity: .6; }
.vc-player video { width: 100%; max-height: 420px; background: #000; border-radius: 6px; }
.vc-player video[hidden] { display: none; }
.vc-player fieldset { border: 0; margin: .5em 0; padding: 0; }
.vc-player legend { float: left; margin-right: 1em; font-weight: 600; }
.vc-player label { margin-right: 1em; display: inline-block; padding: .3em 0; }
.vc-row { display: flex; flex-wrap: wrap; gap: .4em .8em; align-items: center; }
.vc-row input { flex: 1; min-width: 160px; }
.vc-row .vc-time { min-width: 8.5em; font-variant-numeric: tabular-nums; }
.vc-play { padding: .5em 1.2em; border-radius: 6px; background: #1f55c4 !important; color: #fff !important;
  min-width: 6.5em; }
.vc-spans { width: 100%; height: 10px; background: #8883; border-radius: 3px; }
.vc-spans rect { fill: #d9820f; }
.vc-strip { display: flex; gap: 6px; overflow-x: auto; }
.vc-strip figure { margin: 0; flex: 0 0 130px; } .vc-strip img { width: 100%; border-radius: 4px; }
.vc-strip figcaption { font-size: .85em; text-align: center; }
.vc-scores { border-collapse: collapse; } .vc-scores th, .vc-scores td { text-align: left; padding: .2em .9em .2em 0; }
.vc-scores caption { text-align: left; font-weight: 600; }
.vc-spectrograms { width: 100%; height: auto; }
.vc-problem { border-left: 4px solid #c62828; padding: .5em .8em; background: #c6282822; font-weight: 600; }
.vc-note { border-left: 4px solid #1f55c4; padding: .5em .8em; background: #1f55c41a; }
.vc-note progress { width: 100%; display: block; accent-color: #1f55c4; }
.vc-files li { margin: .3em 0; } .vc-files a { text-decoration: underline; }
"""


def picture_value(src: str, alt: str, said: str) -> str:
    """Of the picture: its address, what is in it for those who do not see it, and what is marked."""
    return json.dumps({"src": src, "alt": alt, "said": said})


def wave_value(peaks: Sequence[tuple[float, float]], seconds: float, start: float | None, end: float | None) -> str:
    """Of the waveform: its outline scaled to the loudest sample, and the span that is marked."""
    top = max((max(-low, high) for low, high in peaks), default=0.0) or 1.0
    step = 600 / max(1, len(peaks))
    path = " ".join(
        f"M{(i + 0.5) * step:.1f} {40 - 38 * high / top:.1f}V{40 - 38 * low / top + 0.5:.1f}"
        for i, (low, high) in enumerate(peaks)
    )
    marked = "" if start is None or end is None else f", {start:g} to {end:g} s marked"
    alt = f"Waveform of {seconds:.1f} s{marked}"
    return json.dumps({"path": path, "seconds": seconds, "start": start, "end": end, "alt": alt})


def player_value(
    tracks: Sequence[tuple[str, str, str]], seconds: float, film: str | None, start: float,
    spans: Sequence[tuple[float, ...]],
) -> str:  # fmt: skip
    """Of the player.

    Args:
        tracks: key, label and address of each sound.
        film: address of the film, None for a recording without pictures.
        start: seconds of the film at which the sounds begin.
        spans: start and end of where the target was heard, seconds.
    """
    heard = ", ".join(f"{s:.1f} to {e:.1f} s" for s, e, *_ in list(spans)[:20])
    value: dict[str, Any] = {
        "tracks": [{"key": key, "label": label, "url": url} for key, label, url in tracks],
        "seconds": seconds,
        "film": film,
        "start": start,
        "spans": [[s, e] for s, e, *_ in list(spans)[:200]],
        "alt": f"Heard at {heard}" if heard else "Not heard",
    }
    return json.dumps(value)
