"""What the page looks like and does: all of its CSS and JavaScript."""

CSS = """
:root { color-scheme: light dark; --ground: #fff; --text: #1a1a1f; --quiet: #55555f; --line: #d5d5dc; --panel: #f5f5f8;
  --link: #0b57b0; --overall: #0b57b0; --recall: #b3261e; --precision: #1b6e3c; --faithfulness: #7b3fa0; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #15151a; --text: #ececf1; --quiet: #b0b0bb; --line: #3a3a44; --panel: #1e1e25;
    --link: #8ab8ff; --overall: #8ab8ff; --recall: #ff9d94; --precision: #7fd6a0; --faithfulness: #d3a6f2; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
header, main { max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; margin: .5rem 0; }
h2 { font-size: 1.3rem; margin: 2rem 0 .2rem; overflow-wrap: anywhere; }
h3 { font-size: 1.1rem; margin: 0; overflow-wrap: anywhere; }
p { margin: .2rem 0 .6rem; overflow-wrap: anywhere; }
a { color: var(--link); }
.skip { position: absolute; left: -99rem; }
.skip:focus { position: static; }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.quiet, figcaption, .time, .scale { color: var(--quiet); font-size: .875rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th:is([scope=row], .text), td.text { text-align: left; overflow-wrap: anywhere; min-width: 7rem; font-weight: inherit; }
thead th { white-space: nowrap; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 3px solid var(--link); }
th[aria-sort] button { text-decoration: underline; }
th[aria-sort=ascending] button::after { content: " ↑"; }
th[aria-sort=descending] button::after { content: " ↓"; }
tfoot td, tfoot th { font-weight: 600; }
.error { color: var(--recall); }
article { border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; margin: 1rem 0; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .5rem 1rem; margin: .75rem 0; }
dt { color: var(--quiet); font-size: .875rem; }
dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
meter { width: 100%; height: .6rem; display: block; }
.sounds { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: 1rem; }
figure { margin: 0; min-width: 0; }
.sounds figure { background: var(--panel); border-radius: .4rem; padding: .6rem; }
figcaption { overflow-wrap: anywhere; }
.sounds figcaption strong { color: var(--text); }
.picture { position: relative; background: #000; margin: .4rem 0; line-height: 0; }
.picture img { width: 100%; height: 8rem; }
.picture i { position: absolute; top: 0; bottom: 0; left: 0; width: 2px; background: #fff; display: none; }
audio { width: 100%; }
.time { display: flex; justify-content: space-between; }
.curve { margin-top: 1rem; }
.plot { display: flex; gap: .4rem; height: 9rem; margin-top: .3rem; }
.plot svg { flex: 1; min-width: 0; height: 100%; background: var(--panel); overflow: visible; }
.scale { display: flex; flex-direction: column; justify-content: space-between; line-height: 1; }
.curve .time { padding-left: 1rem; }
polyline, .key line { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke; }
.grid { stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke; }
.overall { stroke: var(--overall); stroke-width: 3 !important; }
.recall { stroke: var(--recall); stroke-dasharray: 8 3; }
.precision { stroke: var(--precision); stroke-dasharray: 2 3; }
.faithfulness { stroke: var(--faithfulness); stroke-dasharray: 8 3 2 3; }
.keys { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; margin: .4rem 0; }
.key { width: 30px; height: 6px; vertical-align: middle; }
summary { cursor: pointer; }
@media print { audio { display: none; } article { break-inside: avoid; } }
"""

# Sorting: numbers from high to low first, what is missing always last. A line runs over the picture of what plays,
# and only one sound plays at a time.
JS = """
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.closest("th"), body = head.closest("table").tBodies[0], column = head.cellIndex;
  const numeric = head.hasAttribute("data-number"), now = head.getAttribute("aria-sort");
  const up = now ? now === "descending" : !numeric;
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const compare = (a, b) => numeric ? a - b : a.localeCompare(b, undefined, {numeric: true});
  const rows = [...body.rows].sort((one, two) => {
    const a = key(one), b = key(two);
    if (a === "" || b === "") return (a === "") - (b === "");
    return up ? compare(a, b) : compare(b, a);
  });
  body.append(...rows);
});
for (const audio of document.querySelectorAll("audio")) {
  const line = audio.closest("figure").querySelector("i");
  audio.addEventListener("timeupdate", () => {
    if (!line || !audio.duration) return;
    line.style.display = "block";
    line.style.left = 100 * audio.currentTime / audio.duration + "%";
  });
  audio.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
  });
}
"""
