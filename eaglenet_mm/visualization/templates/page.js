'use strict';
// Whatever comes from data is set as text or as a number, never as markup.
const data = JSON.parse(document.getElementById('data').textContent);
const STEP = 25;
const state = {filter: 0, sort: 0, text: '', weights: 0, shown: STEP};
const weightNames = Object.keys(data.weights);
const list = document.getElementById('queries');

function make(name, cls, text) {
  const node = document.createElement(name);
  if (cls) node.className = cls;
  if (text !== undefined) node.textContent = text;
  return node;
}

function draw(name, attributes) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  return node;
}

function path(values, low, high, gap) {
  const span = high - low || 1;
  return values.map((value, i) => {
    const top = 1 - Math.max(0, Math.min(1, (value - low) / span));
    return `M${i + gap} 1V${top.toFixed(4)}H${i + 1 - gap}V1Z`;
  }).join('');
}

function strip(video, large) {
  const known = data.videos[video];
  if (!known || !known.images) {
    const reason = known && known.problem
      ? 'cannot be read now: ' + known.problem : 'no frames kept';
    return make('div', 'strip lost', reason);
  }
  const box = make('div', known.height < 48 ? 'strip pixels' : 'strip');
  box.style.setProperty('--slots', `${known.slots.length} / 1`);
  box.style.setProperty('--count', known.slots.length);
  const image = make('i', 'v' + video);
  image.style.width = 100 * known.images / known.slots.length + '%';
  image.setAttribute('role', 'img');
  image.setAttribute('aria-label', `${known.images} frames of ${known.id}`);
  box.append(image);
  return box;
}

function scale(name, results) {
  const all = results.flatMap(result => result.f[name] || []);
  if (!all.length) return null;
  const high = Math.max(...all), least = Math.min(...all);
  // cosines differ little and have no zero to start from: the bars show
  // their range, which the hint states; shares start at zero
  const low = name === 'cosine' ? least - (high - least) * .15 : 0;
  return {low, high};
}

function weights(values, range, name) {
  const picture = draw('svg', {class: 'weights', preserveAspectRatio: 'none',
    viewBox: `0 0 ${values.length} 1`, role: 'img'});
  const hint = draw('title', {});
  hint.textContent = `${name} of the frames: ` +
    values.map(x => x.toFixed(3)).join('  ');
  picture.append(hint, draw('line', {x1: 0, x2: values.length, y1: 1, y2: 1}),
    draw('path', {d: path(values, range.low, range.high, .12)}));
  return picture;
}

function shares(values, name) {
  const box = make('span', 'shares');
  box.title = `${name}: sentence ${values[0].toFixed(3)}, candidates ` +
    values.slice(1).map(x => x.toFixed(3)).join('  ');
  const width = Math.min(7 * values.length, 120);
  const picture = draw('svg', {preserveAspectRatio: 'none', width,
    viewBox: `0 0 ${values.length} 1`});
  picture.append(draw('line', {x1: 0, x2: values.length, y1: 1, y2: 1}),
    draw('path', {d: path(values, 0, Math.max(...values), .12)}));
  box.append(make('span', '', name === 'beta' ? 'β' : name), picture);
  return box;
}

function score(value) {
  if (value === null) return 'score not kept';
  return value < -1e18 ? 'not scored by the head' : value.toFixed(4);
}

function weightName(result) {
  const names = Object.keys(result.f), wanted = weightNames[state.weights];
  return names.includes(wanted) ? wanted : names[0];
}

// several videos may be right, or none
function rightOnes(query) { return query.a || [query.v]; }

// wrong is what ranks above the right answer
function kind(result, query, rank) {
  if (rightOnes(query).includes(result.v)) return 'ok';
  return result.r < rank ? 'no' : '';
}

function chip(rank) {
  return make('span', 'chip ' + (rank === 1 ? 'ok' : rank ? 'no' : ''),
    rank ? 'rank ' + rank : 'no right video');
}

function card(result, query, rank, range) {
  const sort = kind(result, query, rank);
  const known = data.videos[result.v] || {id: data.ids[result.v]};
  const node = make('button', ('card ' + sort).trim());
  node.type = 'button';
  const top = make('div', 'top');
  top.append(make('span', 'rank', ({ok: '✓ ', no: '✗ '}[sort] || '') + result.r),
    make('span', 'id', known.id), make('span', 'score', score(result.s)));
  node.append(top, strip(result.v));
  const name = weightName(result);
  if (name && range) node.append(weights(result.f[name], range, name));
  const bottom = make('div', 'bottom');
  for (const key in result.t) bottom.append(shares(result.t[key], key));
  const own = known.captions && known.captions[0];
  if (own) {
    const text = make('span', 'own', own);
    text.title = known.captions.join('\n');
    bottom.append(text);
  }
  if (bottom.childNodes.length) node.append(bottom);
  node.addEventListener('click', () => enlarge(result, query, rank, known));
  return node;
}

function enlarge(result, query, rank, known) {
  const box = document.getElementById('large');
  box.textContent = '';
  const sort = kind(result, query, rank);
  box.append(make('h3', '', query.c));
  const line = make('p', 'note');
  const words = {ok: 'right, ', no: 'wrong, above the right one, '}[sort];
  line.append(make('span', 'chip ' + sort, `${words || ''}rank ${result.r}`),
    `${known.id} · score ${score(result.s)}`);
  box.append(line, strip(result.v));
  const names = Object.keys(result.f);
  for (const name of names) {
    const range = scale(name, [result]);
    box.append(weights(result.f[name], range, name),
      make('p', 'note', `${name} of the ${result.f[name].length} frames, ` +
        `bars from ${range.low.toFixed(3)} to ${range.high.toFixed(3)}`));
  }
  for (const name in result.t) {
    box.append(shares(result.t[name], name),
      make('p', 'note', `${name === 'beta' ? 'β' : name}: the sentence ` +
        'first, then its candidates'));
  }
  if (known.captions && known.captions.length)
    box.append(make('p', 'note',
      'Captions of this video: ' + known.captions.join(' · ')));
  box.showModal();
}

function answers(query, model, single) {
  const node = make('div', 'answers');
  if (!single) {
    const head = make('div', 'model', data.models[model.i]);
    head.prepend(chip(model.r));
    node.append(head);
  }
  const cards = make('div', 'cards');
  const first = model.x.find(result => weightName(result));
  const range = first && scale(weightName(first), model.x);
  for (const result of model.x) cards.append(card(result, query, model.r, range));
  node.append(cards);
  return node;
}

function row(query) {
  const node = make('article', 'query');
  const single = query.m.length === 1;
  const head = make('h3', '', query.c);
  if (single) head.prepend(chip(query.m[0].r));
  node.append(head, make('p', 'right-id', 'right: ' +
    (rightOnes(query).map(video => data.ids[video]).join(', ') || 'none')));
  for (const model of query.m) node.append(answers(query, model, single));
  return node;
}

function chosen() {
  const text = state.text.trim().toLowerCase();
  const kept = data.queries.filter(query => query.t.includes(state.filter) &&
    (!text || query.c.toLowerCase().includes(text) ||
      rightOnes(query).some(
        video => data.ids[video].toLowerCase().includes(text))));
  const key = state.sort;
  return key ? kept.sort((a, b) => a.s[key - 1] - b.s[key - 1]) : kept;
}

function show() {
  const kept = chosen();
  list.replaceChildren(...kept.slice(0, state.shown).map(row));
  const count = Math.min(state.shown, kept.length);
  document.getElementById('status').textContent = kept.length
    ? `${count} of ${kept.length} ${kept.length === 1 ? 'query' : 'queries'}`
    : 'No query fits.';
  const more = document.getElementById('more');
  more.hidden = count >= kept.length;
  more.textContent =
    `Show ${Math.min(STEP, kept.length - count)} more`;
}

function restart() { state.shown = STEP; show(); }

const filters = document.getElementById('filters');
data.filters.forEach((name, i) => {
  const count = data.queries.filter(query => query.t.includes(i)).length;
  const button = make('button', '', `${name} (${count})`);
  button.type = 'button';
  button.setAttribute('aria-pressed', i === 0);
  button.addEventListener('click', () => {
    state.filter = i;
    [...filters.children].forEach((other, j) =>
      other.setAttribute('aria-pressed', j === i));
    restart();
  });
  filters.append(button);
});

function options(id, names, change) {
  const select = document.getElementById(id);
  names.forEach((name, i) => {
    const option = make('option', '', name);
    option.value = i;
    select.append(option);
  });
  select.parentElement.hidden = names.length < 2;
  select.addEventListener('change', () => change(Number(select.value)));
}

options('sort', data.sorts, value => { state.sort = value; restart(); });
function explain() {
  const name = weightNames[state.weights];
  document.getElementById('bars').textContent =
    name ? `${name}, ${data.weights[name] || 'weights of the frames'}` : '';
}

options('weights', weightNames, value => {
  state.weights = value;
  explain();
  show();
});
explain();
document.getElementById('search').addEventListener('input', event => {
  state.text = event.target.value;
  restart();
});
document.getElementById('more').addEventListener('click', () => {
  state.shown += STEP;
  show();
});
document.getElementById('large').addEventListener('click', event => {
  if (event.target === event.currentTarget) event.currentTarget.close();
});
show();
for (const box of document.querySelectorAll('.scroll'))
  new ResizeObserver(() => box.classList.toggle('wide',
    box.scrollWidth > box.clientWidth + 1)).observe(box);
