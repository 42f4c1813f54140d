"""The report's style sheet: light and dark, wide and narrow. No font, image or script of another place."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d1c1a; --soft: #66625b; --line: #e3dfd8; --page: #fbfaf8; --card: #fff;
  --mark: #17735a; --tile: #f1eee9; }
@media (prefers-color-scheme: dark) { :root { --ink: #eceae6; --soft: #a8a39a; --line: #3a3833; --page: #191816;
  --card: #22201d; --mark: #5cc7a5; --tile: #efece7; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1140px; margin: 0 auto; padding: 48px 28px 80px; }
h1 { font-size: 1.7rem; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 56px 0 4px; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 32px 0 8px; }
p, .soft { color: var(--soft); margin: 0 0 8px; max-width: 72ch; }
ul.facts { margin: 16px 0 0; padding: 0 0 0 1.1em; color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 4px 0 4px 22px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 500; color: var(--soft); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr.title td { font-weight: 600; padding-top: 14px; }
.grid { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px; min-width: 0; }
.query { display: grid; grid-template-columns: 72px minmax(0, 1fr); gap: 14px; }
.query > *, .own > * { min-width: 0; }
.rank { float: right; color: var(--soft); font-size: 0.82rem; margin-left: 8px; }
.own { font-weight: 600; overflow-wrap: anywhere; }
ol { margin: 6px 0 0; padding: 0 0 0 1.5em; font-size: 0.88rem; overflow-wrap: anywhere; }
li.right { color: var(--mark); font-weight: 600; }
.tiles { display: grid; grid-template-columns: repeat(5, minmax(0, 48px)); gap: 6px; margin-top: 10px; }
img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--tile); border-radius: 6px; }
.charts { display: grid; gap: 24px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); }
figure { margin: 0; min-width: 0; }
figcaption { font-size: 0.88rem; color: var(--soft); }
svg { width: 100%; height: auto; display: block; }
svg text { font-size: 12px; fill: var(--soft); }
svg .grid { stroke: var(--line); }
svg .diagonal { stroke: var(--soft); stroke-dasharray: 4 4; }
svg .line { fill: none; stroke: var(--mark); stroke-width: 2; }
svg .dot { fill: var(--mark); fill-opacity: 0.8; }
@media (max-width: 560px) { main { padding: 28px 16px 56px; } .grid { gap: 10px; } th, td { padding-left: 14px; } }
"""
