// A job's log: followed live, paused, searched, linked to by line, saved.

import { announce } from '../announcer.js';
import { download } from '../api.js';
import { h, setText } from '../dom.js';
import { onNextFrame } from '../frames.js';
import { count, plural } from '../format.js';
import { badge, button, iconButton, setBadge } from '../ui.js';
import { LogBuffer } from './buffer.js';
import { Finder } from './finder.js';
import { LogRows } from './rows.js';

const STATES = {
  loading: ['busy', 'Loading …'],
  live: ['busy', 'Live'],
  ended: ['idle', 'Complete'],
  failed: ['bad', 'Not available'],
};
const FIND = { type: 'search', id: 'log-find', placeholder: 'Find', 'aria-label': 'Find in the log' };
const LINE = { type: 'text', id: 'log-line', placeholder: 'Line', 'aria-label': 'Go to line', inputmode: 'numeric' };
const TYPED = { spellcheck: 'false', autocomplete: 'off' };

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
  #message = h('p', { class: 'problem', role: 'alert' });
  #badge = badge('busy', '');
  #lines = h('span', { class: 'dim small' });
  #found = h('span', { class: 'dim small found' });
  #find = h('input', { ...FIND, ...TYPED });
  #line = h('input', { ...LINE, ...TYPED });
  #follow = button('Follow', () => this.#rows.follow(!this.#rows.following), { class: 'small' });

  /** `onJob` is told the job when its log has ended. */
  constructor(connection, jobId, onJob) {
    this.#jobId = jobId;
    this.#rows = new LogRows(this.#buffer, this.#finder, (number) => this.#addressOf(number));
    this.#rows.addEventListener('follow', this.#draw);
    this.#find.addEventListener('input', () => this.#search());
    this.#line.addEventListener('change', () => this.#goToTyped());
    this.element = h('section', { class: 'log', 'aria-label': 'Log', on: { keydown: (event) => this.#onKey(event) } },
      this.#bar(), this.#message, this.#rows.element);
    this.#talk = connection.talk(this.#tail(), {
      onMessage: (message) => this.#take(message, onJob),
      resume: () => this.#tail(),
    });
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

  #addressOf(number) {
    return `#/clusters/jobs/${this.#jobId}/L${number}`;
  }

  #tail() {
    return { op: 'tail', job_id: this.#jobId, from: this.#position };
  }

  #take(message, onJob) {
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
        this.#takeError(message);
        break;
    }
    onNextFrame(this.#draw);
  }

  #append({ next_offset: next, text }) {
    this.#position = next;
    this.#state = 'live';
    this.#buffer.append(text);
    this.#seek();
    this.#rows.update();
  }

  #end() {
    this.#state = 'ended';
    this.#seek();
  }

  #takeError({ code, error }) {
    if (code === 'slow_reader') return this.#talk.goOn();
    this.#state = 'failed';
    return this.#say(error);
  }

  #say(problem) {
    setText(this.#message, problem);
  }

  #seek() {
    if (this.#wanted === null) return;
    if (this.#wanted <= this.#buffer.end) {
      this.#rows.goTo(this.#wanted);
      this.#wanted = null;
    } else if (this.#state === 'ended') {
      this.#say(`There is no line ${this.#wanted}.`);
    }
  }

  #bar() {
    const steps = [
      iconButton('Previous match', 'up', () => this.#step(-1)),
      iconButton('Next match', 'down', () => this.#step(1)),
    ];
    return h('div', { class: 'log-bar' },
      h('h2', {}, 'Log'), this.#badge, this.#lines,
      h('div', { class: 'log-tools' },
        h('div', { class: 'log-find' }, h('span', { class: 'log-find-box' }, this.#find, this.#found), steps),
        h('div', { class: 'log-go' },
          this.#line, this.#follow, iconButton('Save the log', 'download', () => this.#save()))));
  }

  #show() {
    setBadge(this.#badge, ...STATES[this.#state]);
    const { end, dropped } = this.#buffer;
    const missing = dropped > 0 ? `; the first ${count(dropped)} only in the saved log` : '';
    setText(this.#lines, plural(end, 'line') + missing);
    this.#follow.classList.toggle('paused', !this.#rows.following);
    setText(this.#follow.lastChild, this.#rows.following ? 'Pause' : 'Follow');
    this.#finder.update();
    setText(this.#found, this.#finder.summary);
  }

  #search() {
    this.#finder.find(this.#find.value);
    this.#rows.redraw();
    this.#step(1);
  }

  #step(direction) {
    const number = this.#finder.step(direction, this.#rows.first);
    setText(this.#found, this.#finder.summary);
    if (this.#finder.query) announce(`${this.#finder.summary}.`);
    if (number !== null) this.#rows.goTo(number);
  }

  #onKey(event) {
    if (event.target === this.#find && event.key === 'Enter') {
      event.preventDefault();
      this.#step(event.shiftKey ? -1 : 1);
    } else if (event.key === '/' && !(event.target instanceof HTMLInputElement)) {
      event.preventDefault();
      this.#find.focus();
    }
  }

  #goToTyped() {
    const number = Number.parseInt(this.#line.value, 10);
    const isHere = number > this.#buffer.dropped && number <= this.#buffer.end;
    this.#say(isHere || this.#line.value === '' ? '' : `There is no line ${this.#line.value}.`);
    if (isHere) location.hash = this.#addressOf(number);
  }

  async #save() {
    try {
      const log = await download(`/api/hyperpod/jobs/${encodeURIComponent(this.#jobId)}/logs`, 'text/plain');
      const url = URL.createObjectURL(log);
      h('a', { href: url, download: `${this.#jobId}.log` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (error) {
      this.#say(error.message);
    }
  }
}
