// The window onto a log: of all its lines, only those that are seen are in the page.

import { h, setAttribute } from '../dom.js';
import { onNextFrame } from '../frames.js';
import { classesOf } from './ansi.js';

const ROW = 20; // pixels; log.css says the same
const MARGIN = 12; // rows beyond each edge, so that a scroll of a few lines draws nothing

/** Fires 'follow' when following begins or ends. `linkTo(number)` is the address of a line. */
export class LogRows extends EventTarget {
  following = true;
  target = null; // the line that the address names
  #buffer;
  #finder;
  #linkTo;
  #rows = new Map(); // by line number
  #spare = [];
  #dropped = 0;
  #draw = () => this.#show();

  constructor(buffer, finder, linkTo) {
    super();
    this.#buffer = buffer;
    this.#finder = finder;
    this.#linkTo = linkTo;
    this.sizer = h('div', { class: 'log-sizer' });
    this.element = h('div', { class: 'log-rows', tabindex: 0, role: 'region', 'aria-label': 'Lines of the log' }, this.sizer);
    this.element.addEventListener('scroll', () => {
      this.follow(this.#isAtEnd());
      this.update();
    }, { passive: true });
    this.#resized = new ResizeObserver(() => this.update());
    this.#resized.observe(this.element);
  }

  #resized;

  /** Draws what has changed, at the next frame. */
  update() {
    onNextFrame(this.#draw);
  }

  /** Draws every row anew: what is marked in them has changed. */
  redraw() {
    for (const row of this.#rows.values()) row.line = null;
    this.update();
  }

  follow(following) {
    if (following === this.following) return;
    this.following = following;
    this.dispatchEvent(new Event('follow'));
    if (following) this.update();
  }

  /** Brings a line to the middle; following ends. */
  goTo(number) {
    this.follow(false);
    this.#size();
    this.element.scrollTop = (number - 0.5 - this.#buffer.dropped) * ROW - this.element.clientHeight / 2;
    this.update();
  }

  /** The first line that is seen. */
  get first() {
    return this.#buffer.dropped + Math.floor(this.element.scrollTop / ROW) + 1;
  }

  drop() {
    this.#resized.disconnect();
  }

  #isAtEnd() {
    const { scrollTop, clientHeight } = this.element;
    return scrollTop + clientHeight >= (this.#buffer.end - this.#buffer.dropped) * ROW - 2 * ROW;
  }

  #size() {
    this.sizer.style.height = `${(this.#buffer.end - this.#buffer.dropped) * ROW}px`;
  }

  #show() {
    this.#size();
    this.#keepPlace();
    const from = Math.max(this.#buffer.dropped + 1, this.first - MARGIN);
    const to = Math.min(this.#buffer.end, this.first + Math.ceil(this.element.clientHeight / ROW) + MARGIN);
    for (const [number, row] of this.#rows) {
      if (number < from || number > to) {
        row.element.remove();
        this.#rows.delete(number);
        if (this.#spare.length < 4 * MARGIN) this.#spare.push(row);
      }
    }
    for (let number = from; number <= to; number += 1) this.#showRow(number);
  }

  /** Lines that are dropped at the top must not move those that are read. */
  #keepPlace() {
    const gone = this.#buffer.dropped - this.#dropped;
    this.#dropped = this.#buffer.dropped;
    if (this.following) this.element.scrollTop = this.element.scrollHeight;
    else if (gone > 0) this.element.scrollTop -= gone * ROW;
  }

  #showRow(number) {
    let row = this.#rows.get(number);
    if (!row) {
      row = this.#spare.pop() ?? makeRow();
      row.line = null;
      this.#rows.set(number, row);
      this.sizer.append(row.element);
    }
    row.element.style.transform = `translateY(${(number - 1 - this.#buffer.dropped) * ROW}px)`;
    setAttribute(row.element, 'data-at', number === this.target ? 'target' : number === this.#finder.current ? 'found' : null);
    const line = this.#buffer.line(number);
    if (row.line === line && row.number === number) return;
    Object.assign(row, { line, number });
    row.link.textContent = number;
    row.link.href = this.#linkTo(number);
    row.link.setAttribute('aria-label', `Link to line ${number}`);
    row.text.replaceChildren(...this.#spans(number));
  }

  #spans(number) {
    return this.#finder.parts(this.#buffer.runs(number)).map(({ text, style, isMatch }) => {
      if (!isMatch && !style) return document.createTextNode(text);
      return h(isMatch ? 'mark' : 'span', { class: classesOf(style) || null }, text);
    });
  }
}

function makeRow() {
  // Not in the order of the Tab key: forty links between two buttons help nobody; "Go to line" makes the same link.
  const link = h('a', { class: 'log-number', tabindex: -1 });
  const text = h('span', { class: 'log-text' });
  return { element: h('div', { class: 'log-row' }, link, text), link, text, line: null, number: 0 };
}
