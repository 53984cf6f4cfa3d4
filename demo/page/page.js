'use strict';
// Text from outside (queries, names of files, messages) is put into the page
// with textContent and attributes only, so it can never become markup.

const byId = (id) => document.getElementById(id);
const probe = document.createElement('video');
let about = { max_upload: 0, segment: 0 };
let running = null;

const near = 'IntersectionObserver' in window
  ? new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        near.unobserve(entry.target);
        entry.target.dispatchEvent(new Event('near'));
      }
    }
  }, { rootMargin: '200px' })
  : { observe: (card) => card.dispatchEvent(new Event('near')) };

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

/** Tell whether a browser may be able to play a kind of file. */
function mayPlay(kind) {
  // Chromium plays Matroska, but does not say so
  return kind === 'video/x-matroska' || probe.canPlayType(kind) !== '';
}

/** Ask the server; give its answer, or throw an Error with a sentence. */
async function ask(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Error('The server does not answer. Is demo/app.py running?');
  }
  let answer = null;
  try {
    answer = await response.json();
  } catch (error) {
    if (error.name === 'AbortError') throw error;
  }
  if (response.ok && answer !== null) return answer;
  throw new Error((answer && answer.error)
    || `The server answered with status ${response.status}.`);
}

function showError(sentence) {
  byId('error').textContent = sentence;
  byId('error').hidden = !sentence;
}

/** Show a sentence in the place of hits, which would seem to belong to it. */
function fail(sentence) {
  if (running) running.abort();
  for (const name of ['summary', 'note']) byId(name).textContent = '';
  byId('cut').hidden = true;
  byId('hits').replaceChildren();
  showError(sentence);
}

/** Search, and show what comes back; a new search ends the one before. */
async function search(title, address, options, query) {
  if (running) running.abort();
  const mine = new AbortController();
  running = mine;
  showError('');
  byId('welcome').hidden = true;
  byId('cut').hidden = true;
  byId('summary').textContent = 'Searching\u2026';
  byId('note').textContent = '';
  document.body.classList.add('busy');
  try {
    const answer = await ask(address, { ...options, signal: mine.signal });
    showAnswer(title, answer, query);
  } catch (error) {
    if (error.name === 'AbortError' || running !== mine) return;
    fail(error.message);
  } finally {
    if (running === mine) {
      running = null;
      document.body.classList.remove('busy');
    }
  }
}

function showAnswer(title, answer, query) {
  const what = about.segment ? 'moment' : 'video';
  byId('summary').textContent = answer.hits.length
    ? `${many(answer.hits.length, what)} ${title}`
    : 'The index holds no videos.';
  byId('note').textContent
    = `${answer.note} \u00b7 ${answer.seconds.toFixed(2)} s`;
  const read = answer.read;
  if (query && typeof read === 'number') {
    // the server counts characters, JavaScript counts halves of some of them
    const characters = Array.from(query);
    const end = characters.slice(Math.max(0, read - 40), read).join('');
    byId('cut').textContent = 'The model reads a limited number of words: '
      + `only the first ${count(read)} of ${count(characters.length)} `
      + `characters counted, up to \u201c${read > 40 ? '\u2026' : ''}`
      + `${end}\u201d.`;
    byId('cut').hidden = false;
  }
  byId('hits').replaceChildren(
    ...answer.hits.map((hit, place) => makeCard(hit, place + 1)),
  );
}

/** Make the card of a hit. */
function makeCard(hit, rank) {
  const card = byId('card').content.firstElementChild.cloneNode(true);
  const find = (selector) => card.querySelector(selector);
  find('.rank').textContent = String(rank);
  find('h2').textContent = hit.name;
  find('h2').title = hit.path;
  const folder = find('.folder');
  folder.textContent = hit.folder;
  folder.title = hit.path;
  folder.hidden = hit.folder === '.';
  find('.start').textContent = `${clock(hit.start)} to ${clock(hit.end)}`;
  find('.start').title = 'Play from the beginning of this moment';
  find('.best').textContent = clock(hit.best_time);
  find('.best').title = 'Play from the frame that fits best';
  const same = hit.score === hit.similarity;
  find('.numbers').textContent = (same ? '' : `score ${number(hit.score)} \u00b7 `)
    + `similarity ${number(hit.similarity)}`;
  placeOnTrack(find('.track'), hit);
  addPlayer(card, hit);
  return card;
}

function number(value) {
  return value === null ? '?' : value.toFixed(3);
}

function placeOnTrack(track, hit) {
  const length = Math.max(hit.duration || 0, hit.end || 0);
  track.hidden = !length;
  if (!length) return;
  const percent = (seconds) => `${(100 * seconds) / length}%`;
  const span = track.querySelector('.span');
  span.hidden = !about.segment; // it is the whole video
  span.style.left = percent(hit.start);
  span.style.width = percent(hit.end - hit.start);
  const tick = track.querySelector('.tick');
  tick.hidden = hit.best_time === null;
  tick.style.left
    = `clamp(0px, ${percent(hit.best_time || 0)} - 2px, 100% - 4px)`;
}

function addPlayer(card, hit) {
  const screen = card.querySelector('.screen');
  const video = card.querySelector('video');
  const play = card.querySelector('.play');
  const buttons = card.querySelectorAll('.moment button');
  const best = hit.best_time === null ? hit.start : hit.best_time;
  // the last frame alone is no moment: show two seconds of it at least
  const from = Math.min(best, Math.max(hit.start, hit.end - 2));

  /** Show the thumbnail and a sentence in the place of the player. */
  function giveUp(sentence) {
    video.removeAttribute('src');
    const image = document.createElement('img');
    image.src = `/thumbnail/${hit.row_id}`;
    image.alt = `A frame of ${hit.name}`;
    video.replaceWith(image);
    play.remove();
    card.classList.remove('playing');
    for (const button of buttons) button.disabled = true;
    const trouble = card.querySelector('.trouble');
    trouble.textContent = sentence;
    trouble.hidden = false;
  }

  const unknown = 'Browsers do not play this kind of file. Open it in a '
    + `player and go to ${clock(best)}.`;
  if (hit.trouble) {
    giveUp(hit.trouble);
    return;
  }
  if (!mayPlay(hit.kind)) {
    giveUp(unknown);
    return;
  }

  async function explain() {
    let sentence = unknown;
    try {
      // why: the player does not show what the server answered
      const response = await fetch(`/video/${hit.row_id}`, {
        headers: { Range: 'bytes=0-0' },
      });
      if (!response.ok) sentence = (await response.json()).error;
    } catch {
      sentence = 'The server does not answer. Is demo/app.py running?';
    }
    if (video.isConnected) giveUp(sentence);
  }

  function load() {
    if (video.hasAttribute('src')) return;
    video.preload = 'metadata';
    // of 0 no seek would come, and without one no frame is drawn
    video.src = `/video/${hit.row_id}#t=${Math.max(best, 0.01)}`;
  }

  function playFrom(seconds) {
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

  video.poster = `/thumbnail/${hit.row_id}`;
  video.setAttribute('aria-label', hit.name);
  video.addEventListener('error', explain);
  video.addEventListener('loadedmetadata', () => {
    // sound alone is played of a picture that cannot be decoded
    if (!video.videoWidth) giveUp(unknown);
  });
  // the frame at the best moment, in its full size
  video.addEventListener('seeked', () => video.removeAttribute('poster'));
  video.addEventListener('play', () => {
    for (const other of document.querySelectorAll('video')) {
      if (other !== video) other.pause();
    }
  });
  play.setAttribute('aria-label', `Play ${hit.name} from ${clock(from)}`);
  play.addEventListener('click', () => playFrom(from));
  buttons[0].addEventListener('click', () => playFrom(hit.start));
  buttons[1].addEventListener('click', () => playFrom(from));
  card.addEventListener('near', load);
  near.observe(card);
}

function searchText() {
  const query = byId('query').value;
  if (!query.trim()) {
    fail('The query is empty. Say in a sentence what the video shows.');
    return;
  }
  search(`for \u201c${query.trim()}\u201d`, '/api/search', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ query, k: Number(byId('count').value) }),
  }, query);
}

function searchClip(file) {
  const most = about.max_upload;
  if (most && file.size > most * 2 ** 20) {
    // the server refuses it as well, but a browser may not show its answer
    fail(`The clip is too large: at most ${most} MB are taken.`);
    return;
  }
  const form = new FormData();
  form.append('clip', file);
  form.append('k', byId('count').value);
  search(`like ${file.name}`, '/api/search_video',
    { method: 'POST', body: form }, null);
}

function listen() {
  byId('search').addEventListener('submit', (event) => {
    event.preventDefault();
    searchText();
  });
  byId('clip').addEventListener('change', (event) => {
    const [file] = event.target.files;
    if (file) searchClip(file);
    event.target.value = ''; // the same file may be chosen again
  });
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
    if (file) searchClip(file);
  });
}

async function begin() {
  listen();
  try {
    about = await ask('/api/about', {});
  } catch (error) {
    showError(error.message);
    return;
  }
  const moments = about.segment
    ? `${many(about.rows, 'moment')} of ${many(about.files, 'video')}`
    : many(about.files, 'video');
  byId('about').textContent = [about.index, moments, about.method]
    .filter(Boolean).join(' \u00b7 ');
  byId('samples').replaceChildren(...about.samples.map((sample) => {
    const image = document.createElement('img');
    image.src = `/thumbnail/${sample.row_id}`;
    image.alt = '';
    image.title = sample.name;
    return image;
  }));
  if (about.untrained.length) {
    byId('untrained').textContent = 'Random weights in '
      + `${about.untrained.join(' and ')}: the model of this index was not `
      + 'trained, and the order of the hits means nothing.';
    byId('untrained').hidden = false;
  }
}

begin();
