'use strict';
// Whatever comes from data is set as text or as a number, never as markup.
const data = JSON.parse(document.getElementById('data').textContent);
const weightNames = Object.keys(data.weights);
const STEP = 25;
const state = {filter: 0, sort: 0, text: '', weights: 0, shown: STEP};
const byId = id => document.getElementById(id);

function make(name, cls, ...children) {
  const node = document.createElement(name);
  if (cls) node.className = cls;
  node.append(...children.filter(child => child !== ''));
  return node;
}

function draw(name, attributes, ...children) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  node.append(...children);
  return node;
}

function bars(values, low, high, attributes, ...children) {
  const path = values.map((value, i) => {
    const share = (value - low) / (high - low || 1);
    const top = 1 - Math.max(0, Math.min(1, share));
    return `M${i + .12} 1V${top.toFixed(4)}H${i + .88}V1Z`;
  }).join('');
  return draw('svg', {preserveAspectRatio: 'none',
    viewBox: `0 0 ${values.length} 1`, ...attributes}, ...children,
  draw('line', {x1: 0, x2: values.length, y1: 1, y2: 1}),
  draw('path', {d: path}));
}

function strip(video) {
  const known = data.videos[video];
  if (!known || !known.images)
    return make('div', 'strip lost', known && known.problem
      ? 'cannot be read now: ' + known.problem : 'no frames kept');
  const image = make('i', 'v' + video);
  const box = make('div', known.height < 48 ? 'strip pixels' : 'strip', image);
  box.style.setProperty('--slots', `${known.slots.length} / 1`);
  box.style.setProperty('--count', known.slots.length);
  image.style.width = 100 * known.images / known.slots.length + '%';
  image.setAttribute('role', 'img');
  image.setAttribute('aria-label', `${known.images} frames of ${known.id}`);
  return box;
}

function scale(name, results) {
  const all = results.flatMap(result => result.f[name] || []);
  const high = Math.max(...all), least = Math.min(...all);
  // cosines differ little and have no zero to start from: the bars show
  // their range, which the hint states; shares start at zero
  return {low: name === 'cosine' ? least - (high - least) * .15 : 0, high};
}

const told = values => values.map(x => x.toFixed(3)).join('  ');

function weights(values, range, name) {
  const hint = draw('title', {}, `${name} of the frames: ${told(values)}`);
  return bars(values, range.low, range.high, {class: 'weights', role: 'img'},
    hint);
}

const greek = name => name === 'beta' ? 'β' : name;

function shares(values, name) {
  const width = Math.min(7 * values.length, 120);
  const box = make('span', 'shares', make('span', '', greek(name)),
    bars(values, 0, Math.max(...values), {width}));
  box.title = `${name}: sentence ${values[0].toFixed(3)}, candidates ` +
    told(values.slice(1));
  return box;
}

function score(value) {
  if (value === null) return 'score not kept';
  return value < -1e18 ? 'not scored by the head' : value.toFixed(4);
}

function weightName(result) {
  const wanted = weightNames[state.weights];
  return wanted in result.f ? wanted : Object.keys(result.f)[0];
}

// several videos may be right, or none
const rightOnes = query => query.a || [query.v];

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
  const sort = kind(result, query, rank), name = weightName(result);
  const known = data.videos[result.v] || {id: data.ids[result.v]};
  const node = make('button', ('card ' + sort).trim(),
    make('div', 'top',
      make('span', 'rank', ({ok: '✓ ', no: '✗ '}[sort] || '') + result.r),
      make('span', 'id', known.id), make('span', 'score', score(result.s))),
    strip(result.v));
  node.type = 'button';
  if (name) node.append(weights(result.f[name], range, name));
  const bottom = make('div', 'bottom');
  for (const key in result.t) bottom.append(shares(result.t[key], key));
  if (known.captions && known.captions.length) {
    const text = make('span', 'own', known.captions[0]);
    text.title = known.captions.join('\n');
    bottom.append(text);
  }
  if (bottom.childNodes.length) node.append(bottom);
  node.addEventListener('click', () => enlarge(result, query, sort, known));
  return node;
}

function enlarge(result, query, sort, known) {
  const words = {ok: 'right, ', no: 'wrong, above the right one, '}[sort] || '';
  const box = byId('large');
  box.replaceChildren(make('h3', '', query.c),
    make('p', 'note', make('span', 'chip ' + sort, `${words}rank ${result.r}`),
      `${known.id} · score ${score(result.s)}`), strip(result.v));
  for (const name in result.f) {
    const range = scale(name, [result]);
    box.append(weights(result.f[name], range, name),
      make('p', 'note', `${name} of the ${result.f[name].length} frames, ` +
        `bars from ${range.low.toFixed(3)} to ${range.high.toFixed(3)}`));
  }
  for (const name in result.t)
    box.append(shares(result.t[name], name), make('p', 'note',
      `${greek(name)}: the sentence first, then its candidates`));
  if (known.captions && known.captions.length)
    box.append(make('p', 'note',
      'Captions of this video: ' + known.captions.join(' · ')));
  box.showModal();
}

function row(query) {
  const single = query.m.length === 1;
  const right = rightOnes(query).map(video => data.ids[video]).join(', ');
  const node = make('article', 'query',
    make('h3', '', single ? chip(query.m[0].r) : '', query.c),
    make('p', 'right-id', 'right: ' + (right || 'none')));
  for (const model of query.m) {
    if (!single)
      node.append(make('div', 'model', chip(model.r), data.models[model.i]));
    const first = model.x.find(weightName);
    const range = first && scale(weightName(first), model.x);
    node.append(make('div', 'cards',
      ...model.x.map(result => card(result, query, model.r, range))));
  }
  return node;
}

function chosen() {
  const text = state.text.trim().toLowerCase();
  const kept = data.queries.filter(query => query.t.includes(state.filter) &&
    [query.c, ...rightOnes(query).map(video => data.ids[video])].some(
      words => words.toLowerCase().includes(text)));
  const key = state.sort;
  return key ? kept.sort((a, b) => a.s[key - 1] - b.s[key - 1]) : kept;
}

function show() {
  const kept = chosen(), count = Math.min(state.shown, kept.length);
  byId('queries').replaceChildren(...kept.slice(0, count).map(row));
  byId('status').textContent = kept.length
    ? `${count} of ${kept.length} ${kept.length === 1 ? 'query' : 'queries'}`
    : 'No query fits.';
  byId('more').hidden = count >= kept.length;
  byId('more').textContent = `Show ${Math.min(STEP, kept.length - count)} more`;
  const name = weightNames[state.weights];
  byId('bars').textContent =
    name ? `${name}, ${data.weights[name] || 'weights of the frames'}` : '';
}

function change(changes) {
  Object.assign(state, {shown: STEP}, changes);
  show();
}

data.filters.forEach((name, i) => {
  const count = data.queries.filter(query => query.t.includes(i)).length;
  const button = make('button', '', `${name} (${count})`);
  button.type = 'button';
  button.setAttribute('aria-pressed', i === 0);
  button.addEventListener('click', () => {
    [...byId('filters').children].forEach((other, j) =>
      other.setAttribute('aria-pressed', j === i));
    change({filter: i});
  });
  byId('filters').append(button);
});
for (const [id, names] of [['sort', data.sorts], ['weights', weightNames]]) {
  names.forEach((name, i) => byId(id).append(new Option(name, i)));
  byId(id).parentElement.hidden = names.length < 2;
  byId(id).addEventListener('change', event =>
    change({[id]: Number(event.target.value),
      shown: id === 'sort' ? STEP : state.shown}));
}
byId('search').addEventListener('input', event =>
  change({text: event.target.value}));
byId('more').addEventListener('click', () =>
  change({shown: state.shown + STEP}));
byId('large').addEventListener('click', event => {
  if (event.target === event.currentTarget) event.currentTarget.close();
});
for (const box of document.querySelectorAll('.scroll'))
  new ResizeObserver(() => box.classList.toggle('wide',
    box.scrollWidth > box.clientWidth + 1)).observe(box);
show();
