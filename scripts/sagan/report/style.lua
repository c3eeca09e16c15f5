--- style.lua - how a report looks: light and dark, on a phone, printed. System fonts, nothing from outside.
--
-- Colours of arms: k0 is neutral, for what the others are compared with. Chosen by search: any two are 27 or more apart
-- (CIE76) in full, protanope and deuteranope sight, 15 in tritanope, and each has a contrast of 3 to 1 with its page. Shapes
-- tell the arms apart without colours (marks.lua). Dark is for screens alone, so that paper stays white.
return [[
:root {
  color-scheme: light dark;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "Liberation Sans", Arial, sans-serif;
  --page: #ffffff; --ink: #1b1f24; --soft: #59616b; --rule: #d9dde2; --faint: #eceff2; --tint: #f5f7f9;
  --good: #0b6b4f; --bad: #b3400a; --mark: #fff4d6; --warn: #b08a00;
  --k0: #3f4855; --k1: #0e409c; --k2: #d81200; --k3: #5a9f86; --k4: #ac81c6; --k5: #749e55; --k6: #2e88ff; --k7: #1e3bff;
  --k8: #802620;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --ink: #e6e9ec; --soft: #a0a8b1; --rule: #383e45; --faint: #262b30; --tint: #1c2024;
    --good: #56d0a6; --bad: #ff9a66; --mark: #40361a; --warn: #d9b431;
    --k0: #d1e6e8; --k1: #5478ca; --k2: #d48417; --k3: #82df8b; --k4: #b06788; --k5: #ffde2d; --k6: #74cafe; --k7: #7861fe;
    --k8: #588648;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 70rem; background: var(--page); color: var(--ink);
  font: 1rem/1.55 var(--sans);
  overflow-wrap: break-word;
}
h1, h2, h3, h4 { line-height: 1.25; text-wrap: balance; }
h1 { font-size: 2rem; font-weight: 650; letter-spacing: -.015em; margin: .1rem 0 .5rem; }
h2 { font-size: 1.3rem; font-weight: 650; margin: 3rem 0 .75rem; padding-top: .8rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1.05rem; font-weight: 650; margin: 2rem 0 .5rem; }
h4 { font-size: 1rem; font-weight: 650; margin: 1.25rem 0 .25rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: inherit; text-decoration-color: var(--soft); text-underline-offset: .15em; }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; }
small { display: block; color: var(--soft); font-size: .8rem; font-weight: 400; line-height: 1.35; }
.kicker, .aside, caption, figcaption, .legend, summary { color: var(--soft); }
.kicker { font-size: .9rem; margin: 0; max-width: none; }
.question { font-size: 1.15rem; line-height: 1.45; }
.aside { font-size: .85rem; font-weight: 400; }
.study { margin-top: 5rem; }
.study > h2 { font-size: 1.6rem; border-top: 2px solid var(--ink); padding-top: 1rem; }
nav ul { list-style: none; padding: 0; margin: 1.25rem 0 0; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem;
  font-size: .9rem; }
.lead { font-size: 1.1rem; line-height: 1.5; }
.plain { padding: 0; margin: .25rem 0; list-style: none; }
.plain.numbered { list-style: decimal; padding-left: 1.4rem; font-size: .9rem; }
.plain li { margin: .15rem 0; }
.verdict { color: var(--soft); } .verdict.good, .verdict.bad { font-weight: 600; }
.verdict.good { color: var(--good); } .verdict.bad { color: var(--bad); }
.notice { border-left: 3px solid var(--warn); background: var(--tint); padding: .6rem 1rem; margin: 1rem 0;
  font-size: .95rem; }
.notice p { margin: 0 0 .3rem; } .notice ul { margin: 0; padding-left: 1.1rem; }

.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; line-height: 1.35; }
caption { text-align: left; font-size: .85rem; padding-bottom: .5rem; caption-side: top; }
caption > div { position: sticky; left: 0; width: fit-content; max-width: min(46rem, calc(100vw - 3rem)); }
caption b { color: var(--ink); }
th, td { padding: .42rem .9rem .42rem 0; text-align: left; vertical-align: baseline; }
th:last-child, td:last-child { padding-right: 0; }
thead th { font-weight: 600; border-bottom: 1px solid var(--ink); vertical-align: bottom; }
tbody th { font-weight: 500; }
tbody tr + tr > * { border-top: 1px solid var(--faint); }
tbody tr.first > * { border-top: 1px solid var(--rule); }
tbody tr:last-child > * { border-bottom: 1px solid var(--rule); }
.num { text-align: right; white-space: nowrap; } .num small { white-space: normal; }
.scores { width: 100%; table-layout: fixed; } .scores col.label { width: 7.5rem; } .scores td { text-align: right; }
.scores th.num { white-space: normal; overflow-wrap: normal; }
.best { font-weight: 700; }
.length { display: block; margin: .2rem 0 0 auto; fill: var(--k0); fill-opacity: .55; }
.missing { color: var(--soft); font-style: italic; } .missing small { font-style: normal; }
.setup th[scope=row] { min-width: 15rem; max-width: 24rem; } .setup td { white-space: nowrap; }
.changed code { background: var(--mark); padding: .1em .3em; border-radius: 3px; }
.machines td { white-space: nowrap; }
.published { color: var(--soft); } .published thead th { border-bottom-style: dashed; }

.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; margin: .5rem 0 1rem;
  font-size: .9rem; }
.legend li { display: flex; align-items: center; gap: .45rem; color: var(--ink); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21.5rem), 1fr)); gap: 1.75rem 2rem;
  align-items: start; }
figure { margin: 0; min-width: 0; }
figcaption { font-size: .9rem; margin-bottom: .35rem; } figcaption b { color: var(--ink); font-weight: 600; }
.chart > svg { display: block; width: 100%; height: auto; overflow: visible; }
.chart text { font: 11px var(--sans); font-variant-numeric: tabular-nums; fill: var(--soft); }
.chart text.name { fill: var(--ink); font-weight: 600; }
.chart text.halo { paint-order: stroke; stroke: var(--page); stroke-width: 4px; stroke-linejoin: round; }
.k0 { --c: var(--k0); } .k1 { --c: var(--k1); } .k2 { --c: var(--k2); } .k3 { --c: var(--k3); } .k4 { --c: var(--k4); }
.k5 { --c: var(--k5); } .k6 { --c: var(--k6); } .k7 { --c: var(--k7); } .k8 { --c: var(--k8); }
.line { fill: none; stroke: var(--c); stroke-width: 1.5; stroke-linejoin: round; stroke-linecap: round; }
.band { fill: var(--c); fill-opacity: .12; }
.mark { fill: var(--c); stroke: var(--page); stroke-width: 1; paint-order: stroke; }
.mark.open { fill: var(--page); stroke: var(--c); stroke-width: 1.6; }
.bar { fill: none; stroke: var(--c); stroke-width: 1.8; } .arrow { fill: var(--c); }
.end { fill: none; stroke: var(--c); stroke-width: 2; stroke-linecap: round; }
.grid, .axis, .zero { fill: none; stroke: var(--faint); } .axis { stroke: var(--soft); stroke-width: .8; }
.zero { stroke: var(--soft); stroke-width: .8; }
details { margin: .35rem 0; font-size: .9rem; } summary { cursor: pointer; font-size: .85rem; width: fit-content; }
details.numbers table { font-size: .82rem; }
details.numbers th, details.numbers td { padding-top: .2rem; padding-bottom: .2rem; }
details[open] > summary { margin-bottom: .4rem; }

.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21.5rem), 1fr)); gap: 1.5rem;
  align-items: start; }
.picture { display: flex; flex-direction: column-reverse; }
.picture svg, .strip svg { display: block; width: 100%; height: auto; background: #fff; border-radius: 2px; }
.box { border: 1px dashed var(--rule); padding: 2rem 1rem; margin: 0; font-size: .9rem; }
.strips { margin: .75rem 0 1.25rem; }
.strip { display: grid; grid-template-columns: 7rem minmax(0, 46rem); align-items: center; gap: .75rem; }
.strip span { font-size: .85rem; text-align: right; overflow-wrap: anywhere; line-height: 1.2; }
.small image, .strip svg { image-rendering: pixelated; }
footer { margin-top: 4rem; padding-top: .8rem; border-top: 1px solid var(--rule); color: var(--soft); font-size: .85rem; }
.prints { font-size: .88rem; } .prints li { margin: .3rem 0; overflow-wrap: anywhere; }

@media (max-width: 40rem) {
  body { padding: 1.25rem 1rem 3rem; }
  h1 { font-size: 1.55rem; overflow-wrap: anywhere; }
  h2 { margin-top: 2.25rem; }
  caption > div { max-width: calc(100vw - 2rem); }
  .strip { grid-template-columns: 1fr; gap: .1rem; } .strip span { text-align: left; }
  .strip svg { image-rendering: auto; }
  .setup th[scope=row] { min-width: 11rem; }
  .scores th[scope=row], .scores thead th:first-child { position: sticky; left: 0; background: var(--page);
    padding-right: .75rem; }
}
@media print {
  :root { --ink: #000000; --soft: #444444; --tint: #ffffff; }
  @page { margin: 16mm 14mm; }
  html { font-size: 9.5pt; } body { padding: 0; max-width: none; }
  nav, details { display: none; }
  h2 { margin-top: 1.6rem; } h2, h3, h4, figcaption { break-after: avoid; }
  figure, tr, .notice, .legend { break-inside: avoid; }
  .scroll { overflow: visible; } .scores { min-width: 0 !important; } .setup th[scope=row] { min-width: 0; }
  .setup td { white-space: normal; }
  .charts, .pictures { grid-template-columns: repeat(2, 1fr); gap: 1rem 1.5rem; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
]]
