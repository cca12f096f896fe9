// The console begins here: the connection, the feed, the three places, and which of them is shown.

import { setAttribute, setText } from './dom.js';
import { Feed } from './feed.js';
import { onNextFrame } from './frames.js';
import { Connection } from './socket.js';
import { createClusters } from './clusters/place.js';
import { createModels } from './models/place.js';
import { createPlayground } from './playground/place.js';

const STATES = {
  connecting: ['busy', 'Connecting'],
  open: ['ok', 'Connected'],
  lost: ['bad', 'Offline'],
};
const LOST = 'The connection is lost. Trying again; what was under way goes on where it was.';

const connection = new Connection();
const feed = new Feed(connection);
const places = {
  playground: createPlayground(connection, feed),
  clusters: createClusters(connection, feed),
  models: createModels(feed),
};

const main = document.getElementById('main');
const links = [...document.querySelectorAll('.places a')];
for (const place of Object.values(places)) {
  place.element.hidden = true;
  main.append(place.element);
}

/** A part of the address; one that is no good UTF-8 names nothing. */
function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Shows the place that the address names: `#/clusters/jobs/ID`. */
function route() {
  const [name, ...rest] = location.hash.replace(/^#\//, '').split('/').map(decode);
  const shown = Object.hasOwn(places, name) ? name : 'playground';
  for (const [other, place] of Object.entries(places)) {
    if (other !== shown && !place.element.hidden) place.hide();
    place.element.hidden = other !== shown;
  }
  for (const link of links) setAttribute(link, 'aria-current', link.hash === `#/${shown}` ? 'page' : null);
  document.title = `${links.find((link) => link.hash === `#/${shown}`).textContent} · Forgeline`;
  places[shown].show(shown === name ? rest : []);
}

function showConnection() {
  const [tone, text] = STATES[connection.state];
  const indicator = document.getElementById('connection');
  indicator.dataset.tone = tone;
  setText(indicator, text);
  const banner = document.getElementById('banner');
  banner.hidden = connection.state !== 'lost';
  setText(banner, connection.state === 'lost' ? LOST : '');
}

document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault(); // the address is the place's
  main.focus();
});
addEventListener('hashchange', route);
connection.addEventListener('state', () => onNextFrame(showConnection));
showConnection();
route();
connection.open();
