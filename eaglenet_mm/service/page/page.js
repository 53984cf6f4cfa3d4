'use strict';
// Text from outside (queries, names of files, messages) is put into the page
// with textContent and attributes only, so it can never become markup.
// What is searched stands in the address: ?q=TEXT, and what limits it.

const byId = (id) => document.getElementById(id);
const form = byId('search');
const probe = document.createElement('video');
const FILTERS = ['folder', 'after', 'before', 'min', 'max', 'tags'];
const FIELDS = ['q', 'k', 'all', ...FILTERS];
const GONE = 'The server does not answer. Is it still running?';
const clips = new Map(); // of this visit, by their number in the history
let about = { max_upload: 0, segment: 0, root: '', files: 0 };
let running = null; // the search that is on its way
let shown = null; // the search whose hits are on the page

/** Call a function once when an element comes near the visible part. */
function whenNear(element, act, margin) {
  if (!('IntersectionObserver' in window)) return null;
  const observer = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) act(observer);
  }, { rootMargin: margin });
  observer.observe(element);
  return observer;
}

/** Write seconds as a player shows them: 1:02:03, or 2:03.4. */
function clock(seconds) {
  if (seconds === null) return '?';
  const tenths = Math.round(seconds * 10);
  const hours = Math.floor(tenths / 36000);
  const minutes = Math.floor(tenths / 600) % 60;
  const rest = tenths % 600;
  const end = (rest < 100 ? '0' : '')
    + (rest % 10 ? (rest / 10).toFixed(1) : String(rest / 10));
  return hours
    ? `${hours}:${String(minutes).padStart(2, '0')}:${end}`
    : `${minutes}:${end}`;
}

const count = (number) => number.toLocaleString('en-US').replace(/,/g, '\u202f');
const many = (number, one) => `${count(number)} ${one}${number === 1 ? '' : 's'}`;
const number = (value) => (value === null ? '?' : value.toFixed(3));
const quoted = (words) => words.map((word) => `\u201c${word}\u201d`).join(', ');

/** Show a text, or hide its place if there is none. */
function say(place, text) {
  const element = typeof place === 'string' ? byId(place) : place;
  element.textContent = text;
  element.hidden = !text;
}

/** Tell whether a browser may be able to play a kind of file. */
function mayPlay(kind) {
  // Chromium plays Matroska, but does not say so
  return kind === 'video/x-matroska' || probe.canPlayType(kind) !== '';
}

/** Ask the server; give its answer, or throw an Error with a sentence. */
async function ask(address, options = {}) {
  let response;
  const headers = { ...options.headers };
  const token = sessionStorage.getItem('token');
  if (token) headers.Authorization = `Bearer ${token}`;
  try {
    response = await fetch(address, { ...options, headers });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Error(GONE);
  }
  let answer = null;
  try {
    answer = await response.json();
  } catch (error) {
    if (error.name === 'AbortError') throw error;
  }
  if (response.ok && answer !== null) return answer;
  if (response.status === 401) {
    sessionStorage.removeItem('token');
    byId('token').hidden = false;
    byId('secret').focus();
    throw new Error(token ? 'This token is not the right one.' : '');
  }
  if (response.status === 413) throw new Error(tooLarge());
  throw new Error((answer && answer.error)
    || `The server answered with status ${response.status}.`);
}

const tooLarge = () => 'This is too large: at most '
  + `${about.max_upload} MB are taken of a clip.`;

// What is asked: a plain object like the fields of the form

function fromAddress() {
  const given = new URLSearchParams(location.search);
  const wanted = {};
  for (const name of FIELDS) {
    if (given.get(name)) wanted[name] = given.get(name);
  }
  if (given.get('like')) wanted.like = given.get('like');
  return wanted;
}

function fromForm() {
  const wanted = {};
  for (const [name, value] of new FormData(form)) {
    if (value.trim() && !(name === 'k' && value === '12')) {
      wanted[name] = value;
    }
  }
  return wanted;
}

function fillForm(wanted) {
  for (const name of FIELDS) {
    const field = form.elements[name];
    if (name === 'all') field.checked = Boolean(wanted.all);
    else if (name === 'k') field.value = wanted.k || '12';
    else field.value = wanted[name] || '';
  }
  if (byId('count').selectedIndex < 0) byId('count').value = '12';
  const active = FILTERS.filter((name) => wanted[name]).length;
  byId('active').textContent = active ? ` \u00b7 ${active} set` : '';
}

/** Write the filter as the server reads it. */
function filterOf(wanted) {
  let path = (wanted.folder || '').trim();
  if (path && !/^\/|[*?[\\]|^[A-Za-z]:/.test(path)) {
    path = `${about.root.replace(/\/$/, '')}/${path}`;
  }
  return {
    path,
    after: wanted.after || '',
    before: wanted.before || '',
    min_duration: wanted.min || '',
    max_duration: wanted.max || '',
    tags: (wanted.tags || '').split(',').map((tag) => tag.trim())
      .filter(Boolean),
  };
}

/** Put a search into the address, and show it. */
function go(wanted, clip) {
  const address = new URLSearchParams(wanted).toString();
  const state = { clip: clip ? clips.size : null };
  if (clip) clips.set(state.clip, clip);
  const target = address ? `?${address}` : location.pathname;
  if (`?${address}` === location.search) history.replaceState(state, '', target);
  else history.pushState(state, '', target);
  show();
}

/** Show what the address says. */
function show() {
  const wanted = fromAddress();
  fillForm(wanted);
  const state = history.state || {};
  const clip = clips.get(state.clip);
  const title = wanted.q || wanted.like;
  document.title = title ? `${title} \u2013 Video search` : 'Video search';
  if (wanted.like && !clip) {
    fail(`Choose the clip ${wanted.like} again: a page cannot keep it.`);
  } else if (title) {
    search({ wanted, clip, offset: 0 });
  } else {
    fail('');
    byId('welcome').hidden = false;
    // where there is a keyboard; it would cover half of a phone
    if (matchMedia('(pointer: fine)').matches) byId('query').focus();
  }
}

/** Show a sentence in the place of hits, which would seem to belong to it. */
function fail(sentence) {
  if (running) running.abort();
  for (const name of ['summary', 'note']) byId(name).textContent = '';
  for (const name of ['nothing', 'words', 'cut', 'more', 'welcome']) {
    byId(name).hidden = true;
  }
  byId('hits').replaceChildren();
  byId('error').firstElementChild.textContent = sentence;
  byId('error').hidden = !sentence;
}

function send(asked, signal) {
  const { wanted, clip, offset } = asked;
  const page = {
    k: Number(wanted.k || 12),
    offset,
    per_video: wanted.all ? 0 : 1,
  };
  const filter = filterOf(wanted);
  if (!clip) {
    return ask('v1/search', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ text: wanted.q, ...page, filter }),
      signal,
    });
  }
  const body = new FormData();
  body.append('clip', clip);
  body.append('filter', JSON.stringify(filter));
  for (const [name, value] of Object.entries(page)) body.append(name, value);
  return ask('v1/search_video', { method: 'POST', body, signal });
}

/** Search, and show what comes back; a new search ends the one before. */
async function search(asked) {
  if (running) running.abort();
  const mine = new AbortController();
  running = mine;
  if (!asked.offset) {
    for (const name of ['error', 'welcome', 'more', 'nothing', 'words', 'cut']) {
      byId(name).hidden = true;
    }
    byId('summary').textContent = 'Searching\u2026';
    byId('note').textContent = '';
    document.body.classList.add('busy');
  }
  try {
    const answer = await send(asked, mine.signal);
    if (running !== mine) return;
    if (asked.offset) addHits(answer);
    else showAnswer(asked, answer);
  } catch (error) {
    if (error.name === 'AbortError' || running !== mine) return;
    if (asked.offset) offerMore(error.message);
    else fail(error.message);
  } finally {
    if (running === mine) {
      running = null;
      document.body.classList.remove('busy');
    }
  }
  if (!asked.offset) describe().catch(() => {}); // it may have changed
}

function showAnswer(asked, answer) {
  const { wanted, clip } = asked;
  shown = { ...asked, ids: new Set(), answer };
  const title = clip ? `like ${clip.name}` : `for \u201c${wanted.q.trim()}\u201d`;
  byId('hits').replaceChildren();
  addHits(answer);
  const limited = FILTERS.some((name) => wanted[name]);
  if (!answer.hits.length) {
    byId('summary').textContent = limited
      ? 'No video passes these filters.' : 'The index holds no videos.';
  } else {
    shown.title = title;
    tellCount();
  }
  byId('note').textContent = answer.total ? how(answer, limited) : '';
  say('nothing', answer.nothing_found && answer.hits.length
    ? 'Probably nothing here shows this. What comes closest is below.' : '');
  const words = [];
  if (answer.unknown_words.length) {
    words.push(`The model does not know ${quoted(answer.unknown_words)}.`);
  }
  if (answer.unseen_words.length) {
    words.push('The model was trained without the words '
      + `${quoted(answer.unseen_words)}.`);
  }
  say('words', words.join(' '));
  say('cut', clip || answer.cut_at === null ? '' : cut(wanted.q, answer.cut_at));
}

/** Say in plain words how the hits were found. */
function how(answer, limited) {
  const what = about.segment ? 'moment' : 'video';
  const all = many(answer.total, what);
  let told = `Looked closely at all ${all}`;
  if (!answer.scored) told = `Compared ${all} by their pictures`;
  else if (answer.scored < answer.total) {
    told = `Compared ${all}; looked closely at the best ${count(answer.scored)}`;
  }
  return `${told}${limited ? ' that pass the filters' : ''} \u00b7 `
    + `${answer.seconds.toFixed(2)} s`;
}

function cut(query, read) {
  // the server counts characters, JavaScript counts halves of some of them
  const characters = Array.from(query);
  const end = characters.slice(Math.max(0, read - 40), read).join('');
  return 'The model reads a limited number of words: only the first '
    + `${count(read)} of ${count(characters.length)} characters counted, up `
    + `to \u201c${read > 40 ? '\u2026' : ''}${end}\u201d.`;
}

function tellCount() {
  const what = about.segment && shown.wanted.all ? 'moment' : 'video';
  const more = shown.answer.has_more ? 'Best ' : '';
  byId('summary').textContent
    = `${more}${many(byId('hits').childElementCount, what)} ${shown.title}`;
}

function addHits(answer) {
  const { ids } = shown;
  shown.answer = answer;
  shown.next = shown.offset + answer.hits.length;
  const list = byId('hits');
  for (const hit of answer.hits) {
    // the index may have changed between two pages
    if (!ids.has(hit.moment_id)) {
      ids.add(hit.moment_id);
      list.append(makeCard(hit, list.childElementCount + 1));
    }
  }
  if (shown.title) tellCount();
  offerMore('');
}

/** Load more when the end of the hits comes near, or by a button. */
function offerMore(trouble) {
  const more = byId('more');
  more.hidden = !shown.answer.has_more;
  more.firstElementChild.textContent = trouble;
  if (shown.observer) shown.observer.disconnect();
  shown.observer = more.hidden || trouble ? null : whenNear(more, loadMore, '300px');
}

function loadMore() {
  if (running) return;
  if (shown.observer) shown.observer.disconnect();
  byId('more').firstElementChild.textContent = 'Searching\u2026';
  shown.offset = shown.next;
  search({ wanted: shown.wanted, clip: shown.clip, offset: shown.next });
}

// Cards

/** Make the card of a hit, with the other moments of its video. */
function makeCard(hit, rank) {
  const card = byId('card').content.firstElementChild.cloneNode(true);
  const find = (selector) => card.querySelector(selector);
  const folder = hit.path.slice(0, -hit.name.length - 1);
  find('.rank').textContent = String(rank);
  find('h2').textContent = hit.name;
  find('h2').title = hit.path;
  say(find('.folder'), folder.startsWith(about.root)
    ? folder.slice(about.root.length).replace(/^\//, '') : folder);
  find('.folder').title = hit.path;
  const player = addPlayer(card, hit);
  const moments = [hit, ...hit.others].map((moment) => ({
    ...moment,
    best: moment.best_time === null ? moment.start : moment.best_time,
  }));
  const choose = addMoments(card, moments, player);
  choose(moments[0]);
  return card;
}

/** Second to play from: the last frame alone is no moment. */
const from = (moment) => Math.min(
  moment.best, Math.max(moment.start, moment.end - 2),
);

/** Lay moments out on the time line, and as buttons below it. */
function addMoments(card, moments, player) {
  const find = (selector) => card.querySelector(selector);
  const track = find('.track');
  const tick = find('.tick');
  const length = Math.max(...moments.map((one) => one.end || 0),
    moments[0].duration || 0);
  const percent = (seconds) => `${(100 * seconds) / length}%`;
  track.hidden = !length;
  let chosen = moments[0];
  const marks = new Map(moments.map((one) => [one, []]));
  const inTime = [...moments].sort((one, two) => one.start - two.start);
  for (const one of inTime) {
    const span = `${clock(one.start)} to ${clock(one.end)}`;
    const act = () => {
      choose(one);
      player.playFrom(from(one));
    };
    if (length && about.segment) {
      const mark = document.createElement('button');
      mark.type = 'button';
      mark.tabIndex = -1; // the buttons below do the same
      mark.title = span;
      mark.style.left = percent(one.start);
      mark.style.width = `max(6px, ${percent(one.end - one.start)} - 1px)`;
      mark.addEventListener('click', act);
      tick.before(mark);
      marks.get(one).push(mark);
    }
    // many would bury the card; the best are first in ``moments``
    if (moments.length > 1 && moments.indexOf(one) < 10) {
      const item = document.createElement('li');
      const button = document.createElement('button');
      button.type = 'button';
      button.textContent = clock(one.start);
      button.setAttribute('aria-label', `Play ${span}`);
      button.title = span;
      button.addEventListener('click', act);
      item.append(button);
      find('.moments').append(item);
      marks.get(one).push(button);
    }
  }

  /** Make one moment the one that is told and marked. */
  function choose(one) {
    chosen = one;
    find('.start').textContent = `${clock(one.start)} to ${clock(one.end)}`;
    find('.best').textContent = clock(one.best_time);
    const same = one.score === null || one.score === one.similarity;
    find('.numbers').textContent = (same ? '' : `score ${number(one.score)} \u00b7 `)
      + `similarity ${number(one.similarity)}`;
    for (const [other, buttons] of marks) {
      for (const button of buttons) {
        button.classList.toggle('current', other === one);
        button.setAttribute('aria-pressed', String(other === one));
      }
    }
    tick.hidden = one.best_time === null;
    if (length) {
      tick.style.left
        = `clamp(0px, ${percent(one.best)} - 2px, 100% - 4px)`;
    }
    find('.play').setAttribute('aria-label',
      `Play ${one.name} from ${clock(from(one))}`);
    player.prepare(one);
  }

  find('.start').title = 'Play from the beginning of this moment';
  find('.best').title = 'Play from the frame that fits best';
  find('.play').addEventListener('click', () => player.playFrom(from(chosen)));
  find('.start').addEventListener('click', () => player.playFrom(chosen.start));
  find('.best').addEventListener('click', () => player.playFrom(from(chosen)));
  return choose;
}

function addPlayer(card, hit) {
  const video = card.querySelector('video');
  const play = card.querySelector('.play');
  let moment = hit;
  let dead = false;

  /** Show the thumbnail and a sentence in the place of the player. */
  function giveUp(sentence) {
    dead = true;
    video.removeAttribute('src');
    const image = document.createElement('img');
    image.src = moment.thumbnail;
    image.alt = `A frame of ${hit.name}`;
    image.loading = 'lazy';
    video.replaceWith(image);
    play.remove();
    card.classList.remove('playing');
    for (const button of card.querySelectorAll('.words button, .track button')) {
      button.disabled = true;
    }
    card.querySelector('.moments').hidden = true;
    say(card.querySelector('.trouble'), sentence);
  }

  const unknown = () => 'Browsers do not play this kind of file. Open it in a '
    + `player and go to ${clock(moment.best)}.`;

  async function explain() {
    if (dead) return;
    let sentence = unknown();
    try {
      // why: the player does not show what the server answered
      const response = await fetch(hit.video, {
        headers: { Range: 'bytes=0-0' },
      });
      if (!response.ok) sentence = (await response.json()).error;
    } catch {
      sentence = GONE;
    }
    if (video.isConnected) giveUp(sentence);
  }

  function load() {
    if (dead || video.hasAttribute('src')) return;
    video.preload = 'metadata';
    // of 0 no seek would come, and without one no frame is drawn
    video.src = `${hit.video}#t=${Math.max(moment.best, 0.01)}`;
  }

  function playFrom(seconds) {
    if (dead) return;
    load();
    const start = () => {
      video.currentTime = seconds;
      video.play().catch(() => {}); // errors come as events
    };
    if (video.readyState >= 1) start();
    else video.addEventListener('loadedmetadata', start, { once: true });
    video.controls = true;
    video.tabIndex = 0;
    play.hidden = true;
    card.classList.add('playing');
    video.focus({ preventScroll: true });
  }

  /** Take the moment that is told, once the card is filled. */
  function prepare(one) {
    const first = moment === hit;
    moment = one;
    if (!first || dead) return;
    video.poster = one.thumbnail;
    if (hit.problem) giveUp(hit.problem);
    else if (!mayPlay(hit.kind)) giveUp(unknown());
    else {
      whenNear(card, (observer) => {
        observer.disconnect();
        load();
      }, '200px');
    }
  }

  video.setAttribute('aria-label', hit.name);
  video.addEventListener('error', explain);
  video.addEventListener('loadedmetadata', () => {
    // sound alone is played of a picture that cannot be decoded
    if (!video.videoWidth) giveUp(unknown());
  });
  // the frame at the best moment, in its full size
  video.addEventListener('seeked', () => video.removeAttribute('poster'));
  video.addEventListener('play', () => {
    for (const other of document.querySelectorAll('video')) {
      if (other !== video) other.pause();
    }
  });
  return { prepare, playFrom };
}

// What the user does

function takeClip(file) {
  if (about.max_upload && file.size > about.max_upload * 2 ** 20) {
    // the server refuses it as well, but a browser may not show its answer
    fail(tooLarge());
    return;
  }
  const { q, ...limits } = fromForm();
  go({ like: file.name, ...limits }, file);
}

/** Search anew with what the form says, if there was a search. */
function act() {
  const { q, like } = fromAddress();
  const { q: typed, ...limits } = fromForm();
  if (like) go({ like, ...limits }, clips.get((history.state || {}).clip));
  else if (q) go({ q, ...limits });
}

function listen() {
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const wanted = fromForm();
    if (wanted.q) go(wanted);
    else fail('The query is empty. Say in a sentence what the video shows.');
  });
  for (const name of ['k', 'all', ...FILTERS]) {
    form.elements[name].addEventListener('change', act);
  }
  byId('clear').addEventListener('click', () => {
    for (const name of FILTERS) form.elements[name].value = '';
    byId('active').textContent = '';
    act();
  });
  byId('clip').addEventListener('change', (event) => {
    const [file] = event.target.files;
    if (file) takeClip(file);
    event.target.value = ''; // the same file may be chosen again
  });
  byId('home').addEventListener('click', (event) => {
    event.preventDefault();
    go({});
  });
  byId('again').addEventListener('click', begin);
  byId('over').addEventListener('click', () => go({}));
  byId('more').lastElementChild.addEventListener('click', loadMore);
  byId('token').addEventListener('submit', (event) => {
    event.preventDefault();
    sessionStorage.setItem('token', byId('secret').value.trim());
    byId('token').hidden = true;
    begin();
  });
  addEventListener('popstate', show);
  const carriesFile = (event) => event.dataTransfer
    && Array.from(event.dataTransfer.types).includes('Files');
  addEventListener('dragover', (event) => {
    if (!carriesFile(event)) return;
    event.preventDefault();
    byId('drop').hidden = false;
  });
  addEventListener('dragleave', (event) => {
    if (event.relatedTarget === null) byId('drop').hidden = true;
  });
  addEventListener('drop', (event) => {
    byId('drop').hidden = true;
    if (!carriesFile(event)) return;
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file) takeClip(file);
  });
}

/** Say what the index is, as it is now. */
async function describe() {
  about = await ask('v1/about');
  const moments = about.segment
    ? `${many(about.moments, 'moment')} of ${many(about.files, 'video')}`
    : many(about.files, 'video');
  byId('about').textContent = [about.index, moments, about.head]
    .filter(Boolean).join(' \u00b7 ');
  say('untrained', about.untrained.length ? 'Random weights in '
    + `${about.untrained.join(' and ')}: the model of this index was not `
    + 'trained, and the order of the hits means nothing.' : '');
  const options = (names) => names.map((name) => new Option(name, name));
  const inside = (path) => path.slice(about.root.length).replace(/^\//, '');
  byId('folders').replaceChildren(
    ...options(about.folders.map(inside).filter(Boolean)),
  );
  byId('tags').replaceChildren(...options(about.tags));
}

function fillWelcome() {
  byId('examples').replaceChildren(...about.examples.map((query) => {
    const item = document.createElement('li');
    const link = document.createElement('a');
    link.href = `?${new URLSearchParams({ q: query })}`;
    link.textContent = query;
    link.addEventListener('click', (event) => {
      event.preventDefault();
      go({ ...fromForm(), q: query });
    });
    item.append(link);
    return item;
  }));
  byId('samples').replaceChildren(...about.samples.map((address) => {
    const image = document.createElement('img');
    image.src = address;
    image.alt = '';
    return image;
  }));
}

async function begin() {
  try {
    await describe();
  } catch (error) {
    fail(error.message);
    return;
  }
  fillWelcome();
  show();
}

listen();
begin();
