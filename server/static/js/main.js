// The console's entry point: the connection, the feed, the three pages and the router.

import { createClustersPage } from './clusters/page.js';
import { Connection } from './connection.js';
import { setAttribute, setText } from './dom.js';
import { Feed } from './feed.js';
import { createModelsPage } from './models/page.js';
import { createPlaygroundPage } from './playground/page.js';
import { scheduleRender } from './render_queue.js';

const CONNECTION_BADGES = {
  connecting: ['busy', 'Connecting'],
  open: ['ok', 'Connected'],
  lost: ['bad', 'Offline'],
};
const CONNECTION_LOST = 'The connection is lost. Trying again; what was under way goes on where it was.';

const connection = new Connection();
const feed = new Feed(connection);
const pages = {
  playground: createPlaygroundPage(connection, feed),
  clusters: createClustersPage(connection, feed),
  models: createModelsPage(feed),
};

const main = document.getElementById('main');
const links = [...document.querySelectorAll('.main-nav a')];
for (const page of Object.values(pages)) {
  page.element.hidden = true;
  main.append(page.element);
}

/** A decoded part of the hash; unchanged where it is not valid UTF-8. */
function decodePart(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Shows the page that the hash names, such as `#/clusters/jobs/ID`. */
function route() {
  const [name, ...rest] = location.hash.replace(/^#\//, '').split('/').map(decodePart);
  const current = Object.hasOwn(pages, name) ? name : 'playground';
  for (const [pageName, page] of Object.entries(pages)) {
    if (pageName !== current && !page.element.hidden) page.hide();
    page.element.hidden = pageName !== current;
  }
  for (const link of links) setAttribute(link, 'aria-current', link.hash === `#/${current}` ? 'page' : null);
  document.title = `${links.find((link) => link.hash === `#/${current}`).textContent} · Forgeline`;
  pages[current].show(current === name ? rest : []);
}

function renderConnection() {
  const [tone, text] = CONNECTION_BADGES[connection.state];
  const indicator = document.getElementById('connection');
  indicator.dataset.tone = tone;
  setText(indicator, text);
  const banner = document.getElementById('banner');
  banner.hidden = connection.state !== 'lost';
  setText(banner, connection.state === 'lost' ? CONNECTION_LOST : '');
}

document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault(); // the hash belongs to the router
  main.focus();
});
addEventListener('hashchange', route);
connection.addEventListener('state', () => scheduleRender(renderConnection));
renderConnection();
route();
connection.open();
