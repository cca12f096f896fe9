// A job's log: followed live, paused, searched, linked to by line, saved.

import { download } from '../api.js';
import { h, setText } from '../dom.js';
import { onNextFrame } from '../frames.js';
import { count, plural } from '../format.js';
import { announce, button, iconButton } from '../ui.js';
import { LogBuffer } from './buffer.js';
import { Finder } from './finder.js';
import { LogRows } from './rows.js';

const STATES = { loading: 'Loading …', live: 'Live', ended: 'Complete', failed: 'Not available' };

export class LogView {
  #buffer = new LogBuffer();
  #finder = new Finder(this.#buffer);
  #position = 0; // of the next byte
  #state = 'loading';
  #jobId;
  #talk;
  #rows;
  #wanted = null; // a line that the address names and that has not come yet
  #draw = () => this.#show();

  /** `onJob` is told the job when its log has ended. */
  constructor(connection, jobId, onJob) {
    this.#jobId = jobId;
    this.#rows = new LogRows(this.#buffer, this.#finder, (number) => `#/clusters/jobs/${jobId}/L${number}`);
    this.#rows.addEventListener('follow', this.#draw);
    this.element = h('section', { class: 'log', 'aria-label': 'Log' }, this.#toolbar(), this.message, this.#rows.element);
    this.element.addEventListener('keydown', (event) => this.#onKey(event));
    this.#talk = connection.talk(this.#tail(), { onMessage: (message) => this.#take(message, onJob), resume: () => this.#tail() });
    this.#show();
  }

  /** Goes to the line that the address names, once it is there. */
  goTo(number) {
    this.#rows.target = number;
    this.#wanted = number;
    this.#rows.follow(false);
    this.element.scrollIntoView({ block: 'nearest' });
    this.#seek();
    this.#rows.update();
  }

  drop() {
    this.#talk.cancel();
    this.#rows.drop();
  }

  #tail() {
    return { op: 'tail', job_id: this.#jobId, from: this.#position };
  }

  #take(message, onJob) {
    switch (message.type) {
      case 'log':
        this.#position = message.next_offset;
        this.#state = 'live';
        this.#buffer.append(message.text);
        this.#seek();
        this.#rows.update();
        break;
      case 'job': {
        const { id, type, ...job } = message;
        onJob(job);
        break;
      }
      case 'complete':
        this.#state = 'ended';
        break;
      case 'error':
        if (message.code === 'slow_reader') this.#talk.goOn();
        else this.#fail(message.error);
        break;
    }
    onNextFrame(this.#draw);
  }

  #fail(why) {
    this.#state = 'failed';
    setText(this.message, why);
    this.message.hidden = false;
  }

  #seek() {
    if (this.#wanted === null || this.#buffer.end < this.#wanted) return;
    this.#rows.goTo(this.#wanted);
    this.#wanted = null;
  }

  #toolbar() {
    this.message = h('p', { class: 'problem', role: 'alert', hidden: true });
    this.status = h('span', { class: 'badge' });
    this.lines = h('span', { class: 'dim small' });
    this.followButton = button('Follow', () => this.#rows.follow(!this.#rows.following), { class: 'small' });
    this.find = h('input', { type: 'search', id: 'log-find', placeholder: 'Find', 'aria-label': 'Find in the log', spellcheck: 'false', autocomplete: 'off', on: { input: () => this.#search() } });
    this.found = h('span', { class: 'dim small found', role: 'status' });
    this.goToLine = h('input', { type: 'text', inputmode: 'numeric', id: 'log-line', placeholder: 'Line', 'aria-label': 'Go to line', autocomplete: 'off', on: { change: () => this.#goToTyped() } });
    return h('div', { class: 'log-bar' },
      h('h2', {}, 'Log'), this.status, this.lines,
      h('div', { class: 'log-tools' },
        h('div', { class: 'log-find' }, h('span', { class: 'log-find-box' }, this.find, this.found), iconButton('Previous match', 'up', () => this.#step(-1)), iconButton('Next match', 'down', () => this.#step(1))),
        this.goToLine, this.followButton, iconButton('Save the log', 'download', () => this.#save())));
  }

  #show() {
    const tone = { loading: 'busy', live: 'busy', ended: 'idle', failed: 'bad' }[this.#state];
    this.status.dataset.tone = tone;
    setText(this.status, STATES[this.#state]);
    const { end, dropped } = this.#buffer;
    setText(this.lines, plural(end, 'line') + (dropped > 0 ? `; the first ${count(dropped)} only in the saved log` : ''));
    this.followButton.classList.toggle('paused', !this.#rows.following);
    setText(this.followButton.lastChild, this.#rows.following ? 'Pause' : 'Follow');
    this.#finder.update();
    this.#showFound();
  }

  #showFound() {
    const { query, matches, current } = this.#finder;
    const at = current === null ? '' : `${count(matches.indexOf(current) + 1)} of `;
    setText(this.found, query && (matches.length > 0 ? at + plural(matches.length, 'line') : 'not found'));
  }

  #search() {
    this.#finder.find(this.find.value);
    this.#rows.redraw();
    this.#step(1);
  }

  #step(direction) {
    const number = this.#finder.step(direction, this.#rows.first);
    this.#showFound();
    if (number !== null) this.#rows.goTo(number);
  }

  #onKey(event) {
    if (event.target === this.find && event.key === 'Enter') {
      event.preventDefault();
      this.#step(event.shiftKey ? -1 : 1);
    } else if (event.key === '/' && !(event.target instanceof HTMLInputElement)) {
      event.preventDefault();
      this.find.focus();
    }
  }

  #goToTyped() {
    const number = Number.parseInt(this.goToLine.value, 10);
    if (!(number > this.#buffer.dropped && number <= this.#buffer.end)) {
      announce(`There is no line ${this.goToLine.value}.`);
      return;
    }
    location.hash = `#/clusters/jobs/${this.#jobId}/L${number}`;
  }

  async #save() {
    try {
      const url = URL.createObjectURL(await download(`/api/hyperpod/jobs/${encodeURIComponent(this.#jobId)}/logs`, 'text/plain'));
      h('a', { href: url, download: `${this.#jobId}.log` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (error) {
      this.#fail(error.message);
    }
  }
}
