// The view of a job's log: follow live, pause, search, link to a line, download.

import { announce } from '../announcer.js';
import { download } from '../api.js';
import { h, setText } from '../dom.js';
import { formatCount, pluralize } from '../format.js';
import { scheduleRender } from '../render_queue.js';
import { badge, button, iconButton, setBadge } from '../ui.js';
import { LogBuffer } from './buffer.js';
import { LogSearch } from './search.js';
import { VirtualRows } from './virtual_rows.js';

const STATE_BADGES = {
  loading: ['busy', 'Loading …'],
  live: ['busy', 'Live'],
  ended: ['idle', 'Complete'],
  failed: ['bad', 'Not available'],
};
const SEARCH_INPUT = { type: 'search', id: 'log-find', placeholder: 'Find', 'aria-label': 'Find in the log' };
const LINE_INPUT = {
  type: 'text', id: 'log-line',
  placeholder: 'Line', 'aria-label': 'Go to line',
  inputmode: 'numeric',
};
const INPUT_ATTRIBUTES = { spellcheck: 'false', autocomplete: 'off' };

export class LogView {
  #buffer = new LogBuffer();
  #search = new LogSearch(this.#buffer);
  #offset = 0; // of the next byte to receive
  #state = 'loading';
  #jobId;
  #operation;
  #rows;
  #pendingLine = null; // the line that the URL names, until it has been received
  #scheduledRender = () => this.#render();
  #error = h('p', { class: 'problem', role: 'alert' });
  #badge = badge('busy', '');
  #lineCount = h('span', { class: 'dim small' });
  #matchCount = h('span', { class: 'dim small match-count' });
  #searchInput = h('input', { ...SEARCH_INPUT, ...INPUT_ATTRIBUTES });
  #lineInput = h('input', { ...LINE_INPUT, ...INPUT_ATTRIBUTES });
  #followButton = button('Follow', () => this.#rows.setFollowing(!this.#rows.following), { class: 'small' });

  /** Calls `onJob(job)` when the log has ended. */
  constructor(connection, jobId, onJob) {
    this.#jobId = jobId;
    this.#rows = new VirtualRows(this.#buffer, this.#search, (number) => this.#hrefOf(number));
    this.#rows.addEventListener('follow', this.#scheduledRender);
    this.#searchInput.addEventListener('input', () => this.#updateQuery());
    this.#lineInput.addEventListener('change', () => this.#goToInputLine());
    const keydown = (event) => this.#onKeydown(event);
    this.element = h('section', { class: 'log', 'aria-label': 'Log', on: { keydown } },
      this.#toolbar(), this.#error, this.#rows.element);
    this.#operation = connection.startOperation(this.#tailRequest(), {
      onMessage: (message) => this.#onMessage(message, onJob),
      resumeRequest: () => this.#tailRequest(),
    });
    this.#render();
  }

  /** Scrolls to a line as soon as it has been received. */
  scrollToLine(number) {
    this.#rows.target = number;
    this.#pendingLine = number;
    this.#rows.setFollowing(false);
    this.element.scrollIntoView({ block: 'nearest' });
    this.#scrollToPendingLine();
    this.#rows.update();
  }

  dispose() {
    this.#operation.cancel();
    this.#rows.dispose();
  }

  #hrefOf(number) {
    return `#/clusters/jobs/${this.#jobId}/L${number}`;
  }

  #tailRequest() {
    return { op: 'tail', job_id: this.#jobId, from: this.#offset };
  }

  #onMessage(message, onJob) {
    switch (message.type) {
      case 'log':
        this.#append(message);
        break;
      case 'job': {
        const { id, type, ...job } = message;
        onJob(job);
        break;
      }
      case 'complete':
        this.#end();
        break;
      case 'error':
        this.#onError(message);
        break;
    }
    scheduleRender(this.#scheduledRender);
  }

  #append({ next_offset: next, text }) {
    this.#offset = next;
    this.#state = 'live';
    this.#buffer.append(text);
    this.#scrollToPendingLine();
    this.#rows.update();
  }

  #end() {
    this.#state = 'ended';
    this.#scrollToPendingLine();
  }

  #onError({ code, error }) {
    if (code === 'slow_reader') return this.#operation.resume();
    this.#state = 'failed';
    return this.#showError(error);
  }

  #showError(message) {
    setText(this.#error, message);
  }

  #scrollToPendingLine() {
    if (this.#pendingLine === null) return;
    if (this.#pendingLine <= this.#buffer.totalLines) {
      this.#rows.scrollToLine(this.#pendingLine);
      this.#pendingLine = null;
    } else if (this.#state === 'ended') {
      this.#showError(`There is no line ${this.#pendingLine}.`);
    }
  }

  #toolbar() {
    const steps = [
      iconButton('Previous match', 'up', () => this.#step(-1)),
      iconButton('Next match', 'down', () => this.#step(1)),
    ];
    return h('div', { class: 'log-bar' },
      h('h2', {}, 'Log'), this.#badge, this.#lineCount,
      h('div', { class: 'log-tools' },
        h('div', { class: 'log-find' },
          h('span', { class: 'log-find-box' }, this.#searchInput, this.#matchCount), steps),
        h('div', { class: 'log-go' },
          this.#lineInput, this.#followButton, iconButton('Save the log', 'download', () => this.#download()))));
  }

  #render() {
    setBadge(this.#badge, ...STATE_BADGES[this.#state]);
    const { totalLines, droppedLines } = this.#buffer;
    const omitted = droppedLines > 0 ? `; the first ${formatCount(droppedLines)} only in the saved log` : '';
    setText(this.#lineCount, pluralize(totalLines, 'line') + omitted);
    this.#followButton.classList.toggle('paused', !this.#rows.following);
    setText(this.#followButton.lastChild, this.#rows.following ? 'Pause' : 'Follow');
    this.#search.update();
    setText(this.#matchCount, this.#search.summary);
  }

  #updateQuery() {
    this.#search.setQuery(this.#searchInput.value);
    this.#rows.updateHighlights();
    this.#step(1);
  }

  #step(direction) {
    const number = this.#search.step(direction, this.#rows.firstVisible);
    setText(this.#matchCount, this.#search.summary);
    if (this.#search.query) announce(`${this.#search.summary}.`);
    if (number !== null) this.#rows.scrollToLine(number);
  }

  #onKeydown(event) {
    if (event.target === this.#searchInput && event.key === 'Enter') {
      event.preventDefault();
      this.#step(event.shiftKey ? -1 : 1);
    } else if (event.key === '/' && !(event.target instanceof HTMLInputElement)) {
      event.preventDefault();
      this.#searchInput.focus();
    }
  }

  #goToInputLine() {
    const number = Number.parseInt(this.#lineInput.value, 10);
    const isAvailable = number > this.#buffer.droppedLines && number <= this.#buffer.totalLines;
    this.#showError(isAvailable || this.#lineInput.value === '' ? '' : `There is no line ${this.#lineInput.value}.`);
    if (isAvailable) location.hash = this.#hrefOf(number);
  }

  async #download() {
    try {
      const log = await download(`/api/hyperpod/jobs/${encodeURIComponent(this.#jobId)}/logs`, 'text/plain');
      const url = URL.createObjectURL(log);
      h('a', { href: url, download: `${this.#jobId}.log` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (error) {
      this.#showError(error.message);
    }
  }
}
