"""The look of the pages: one style sheet, light and dark."""

STYLE = """
:root {
  --ground: #f6f7f9; --paper: #ffffff; --ink: #1b2230; --soft: #667085;
  --rule: #e3e7ee; --accent: #2557d6; --second: #e08a1e; --good: #16803c;
  --good-soft: #e7f6ec; --bad: #c8322b; --bad-soft: #fdeeed;
  --pad: repeating-linear-gradient(45deg, #e9ecf1 0 5px, #f3f5f8 5px 10px);
  color-scheme: light;
}
@media (prefers-color-scheme: dark) { :root {
  --ground: #0f131a; --paper: #181e28; --ink: #e6eaf2; --soft: #98a2b5;
  --rule: #2a3342; --accent: #7aa2ff; --second: #f0aa52; --good: #4cc27a;
  --good-soft: #15301f; --bad: #ff7b72; --bad-soft: #3a1a1a;
  --pad: repeating-linear-gradient(45deg, #222a37 0 5px, #1b222d 5px 10px);
  color-scheme: dark;
} }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main, header { max-width: 1280px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 32px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 19px; margin: 44px 0 4px; letter-spacing: -.005em; }
h3 { font-size: 14px; margin: 0 0 10px; }
p.note, figcaption { color: var(--soft); font-size: 13px; margin: 4px 0 12px;
  overflow-wrap: anywhere; max-width: 100ch; }
.lead { color: var(--soft); margin: 4px 0 0; }
.warning { background: var(--bad-soft); color: var(--bad); padding: 8px 12px;
  border-radius: 8px; margin: 14px 0 0; }
.panel { background: var(--paper); border: 1px solid var(--rule);
  border-radius: 12px; padding: 16px 18px; min-width: 0; margin: 0; }
.grid { display: grid; gap: 16px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); }
.grid.thirds { grid-template-columns:
  repeat(auto-fit, minmax(min(100%, 370px), 1fr)); }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin-top: 18px;
  font-size: 14px; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
.toggle { display: block; font-size: 14px; margin: 0 0 12px; }
.maps .centred, .maps:has(:checked) .plain { display: none; }
.maps:has(:checked) .centred { display: block; }
.scroll { overflow-x: auto; }
dl.facts { display: grid; gap: 2px 16px; margin: 16px 0 0; font-size: 13px;
  grid-template-columns: max-content minmax(0, 1fr); }
dl.facts dt { color: var(--soft); }
dl.facts dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: 14px;
  font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 500; font-size: 13px; }
th, td { padding: 6px 12px; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--rule); }
tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.text, th.text { text-align: left; white-space: normal; min-width: 200px; }
td.main { font-weight: 650; font-size: 16px; }
td.best { color: var(--good); font-weight: 650; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 13px;
  color: var(--soft); margin: 0 0 8px; }
.legend b { display: inline-block; width: 11px; height: 11px;
  border-radius: 3px; margin-right: 6px; vertical-align: -1px; }
.legend b.round { border-radius: 50%; }
.c0 { background: var(--accent); } .c1 { background: var(--second); }
.c2 { background: #7b5bd6; } .c3 { background: #1b9e9e; }
.c4 { background: #b8478b; } .c5 { background: #7a8699; }
svg.chart { display: block; width: 100%; height: auto; font-size: 12px;
  font-family: inherit; }
svg.chart text { fill: var(--soft); }
svg.chart text.name { fill: var(--ink); font-size: 13px; }
svg.chart text.tiny { font-size: 10.5px; }
svg.chart .grid { stroke: var(--rule); stroke-width: 1; }
svg.chart .frame { fill: none; stroke: var(--rule); }
svg.chart .series0 { fill: var(--accent); stroke: var(--paper); }
svg.chart .series1 { fill: var(--second); stroke: var(--paper); }
svg.chart .series2 { fill: #7b5bd6; } svg.chart .series3 { fill: #1b9e9e; }
svg.chart .series4 { fill: #b8478b; } svg.chart .series5 { fill: #7a8699; }
svg.chart .curve { fill: none; stroke-width: 1.4; stroke-linejoin: round; }
svg.chart .curve.series0 { stroke: var(--accent); stroke-width: 2.4; }
svg.chart .curve.series1 { stroke: var(--second); stroke-width: 2; }
svg.chart .curve.series2 { stroke: #7b5bd6; }
svg.chart .curve.series3 { stroke: #1b9e9e; }
svg.chart .curve.series4 { stroke: #b8478b; }
svg.chart .curve.series5 { stroke: #7a8699; }
svg.chart .link { stroke: var(--soft); stroke-opacity: .35; }
svg.chart .link.missed { stroke: var(--bad); stroke-opacity: .6; }
svg.chart .cell { fill: var(--second); }
svg.chart .cell.own { stroke: var(--good); stroke-width: 2; }
svg.chart text.hits { fill: var(--ink); font-weight: 600;
  text-anchor: middle; }
svg.chart text.hits.dark { fill: #1b2230; }
.bar { position: sticky; top: 0; z-index: 2; display: flex; gap: 8px 12px;
  flex-wrap: wrap; align-items: center; padding: 10px 0; margin-top: 12px;
  background: var(--ground); border-bottom: 1px solid var(--rule); }
.bar button, .more, .bar select, .bar input { font: inherit; font-size: 13px;
  color: var(--ink); background: var(--paper); padding: 5px 11px;
  border: 1px solid var(--rule); border-radius: 8px; }
.bar input { min-width: 150px; flex: 1 1 150px; }
.bar button { cursor: pointer; }
.bar button[aria-pressed=true] { background: var(--ink); color: var(--paper);
  border-color: var(--ink); }
.filters { display: flex; gap: 6px; flex-wrap: wrap; }
.bar label { font-size: 13px; color: var(--soft); display: flex; gap: 6px;
  align-items: center; }
.status { color: var(--soft); font-size: 13px; margin: 12px 0; }
.query { background: var(--paper); border: 1px solid var(--rule);
  border-radius: 12px; padding: 14px 16px 16px; margin: 0 0 14px; }
.query h3 { font-size: 16px; font-weight: 600; margin: 0 0 2px;
  overflow-wrap: anywhere; }
.query .right-id { color: var(--soft); font-size: 13px; margin: 0 0 10px;
  overflow-wrap: anywhere; }
.model { display: flex; align-items: center; gap: 8px; margin: 12px 0 6px;
  font-size: 14px; font-weight: 600; }
.chip { display: inline-block; padding: 1px 9px; border-radius: 99px;
  font-size: 12.5px; font-weight: 600; white-space: nowrap;
  margin-right: 8px; vertical-align: 1px; }
.chip.ok { background: var(--good-soft); color: var(--good); }
.chip.no { background: var(--bad-soft); color: var(--bad); }
.cards { display: grid; gap: 10px; grid-template-columns:
  repeat(auto-fill, minmax(min(100%, var(--card)), 1fr)); }
.card { display: block; width: 100%; text-align: left; font: inherit;
  font-size: 12.5px; color: inherit; background: none; cursor: zoom-in;
  border: 2px solid var(--rule); border-left-width: 5px; padding: 6px 8px;
  border-radius: 8px; min-width: 0; }
.card.ok { border-color: var(--good); background: var(--good-soft); }
.card.no { border-color: var(--bad); }
.card:focus-visible, .bar :focus-visible, .more:focus-visible {
  outline: 2px solid var(--accent); outline-offset: 2px; }
.top { display: flex; gap: 6px; align-items: baseline; margin-bottom: 5px; }
.top .rank { font-weight: 700; }
.card.ok .rank { color: var(--good); } .card.no .rank { color: var(--bad); }
.top .id { flex: 1; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; color: var(--soft); }
.top .score { font-variant-numeric: tabular-nums; font-weight: 600; }
.strip { display: flex; background: var(--pad); border-radius: 4px;
  overflow: hidden; aspect-ratio: var(--slots); }
.strip { position: relative; }
.strip:not(.lost)::after { content: ""; position: absolute; inset: 0;
  pointer-events: none; background: repeating-linear-gradient(90deg,
    transparent 0 calc(100% / var(--count) - 1px),
    rgb(255 255 255 / .35) 0 calc(100% / var(--count))); }
.strip i { display: block; background-size: 100% 100%; height: 100%; }
.strip.pixels i { image-rendering: pixelated; }
.strip.lost { align-items: center; justify-content: center; padding: 4px;
  color: var(--soft); font-size: 12px; text-align: center; }
svg.weights { display: block; width: 100%; height: 26px; margin-top: 4px;
  overflow: visible; }
svg.weights path { fill: var(--accent); }
svg.weights line, .shares line { stroke: var(--soft); stroke-width: 1;
  stroke-opacity: .5; vector-effect: non-scaling-stroke; }
.bottom { display: flex; gap: 10px; align-items: center; margin-top: 4px;
  color: var(--soft); font-size: 12px; min-height: 19px; }
.bottom .own { flex: 1; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
.shares { display: flex; align-items: flex-end; gap: 5px; }
.shares svg { height: 17px; display: block; }
.shares path { fill: var(--second); }
.more { display: block; margin: 4px auto 0; padding: 8px 20px;
  cursor: pointer; }
footer { max-width: 1280px; margin: 48px auto 32px; padding: 0 24px;
  color: var(--soft); font-size: 13px; }
dialog { border: 0; border-radius: 14px; padding: 20px 22px; width: 1180px;
  max-width: calc(100vw - 32px); background: var(--paper);
  color: var(--ink); box-shadow: 0 24px 80px rgb(0 0 0 / .4); }
dialog::backdrop { background: rgb(10 14 20 / .6); }
dialog h3 { font-size: 17px; overflow-wrap: anywhere; }
dialog table { width: auto; margin-top: 10px; }
dialog .scroll { max-width: 100%; }
dialog td, dialog th { padding: 3px 8px; font-size: 12.5px; }
@media (max-width: 560px) {
  main, header, footer { padding-left: 12px; padding-right: 12px; }
  header { padding-top: 20px; } h1 { font-size: 23px; }
  .bar { position: static; } .panel { padding: 12px; }
}
@media print { .bar, .more { display: none; } }
"""
