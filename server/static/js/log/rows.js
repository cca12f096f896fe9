// The window onto a log: of all its lines, only those that are seen are in the page.

import { h, KeyedList, setAttribute } from '../dom.js';
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
  #sizer = h('div', { class: 'log-sizer' });
  #list = new KeyedList(this.#sizer, (number) => number, (number) => this.#row(number));
  #marks = 0; // how often what is marked in the rows has changed
  #dropped = 0;
  #resized = new ResizeObserver(() => this.update());
  #draw = () => this.#show();

  constructor(buffer, finder, linkTo) {
    super();
    this.#buffer = buffer;
    this.#finder = finder;
    this.#linkTo = linkTo;
    const props = { class: 'log-rows', tabindex: 0, role: 'region', 'aria-label': 'Lines of the log' };
    this.element = h('div', props, this.#sizer);
    this.element.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    this.#resized.observe(this.element);
  }

  /** Draws what has changed, at the next frame. */
  update() {
    onNextFrame(this.#draw);
  }

  /** Draws every row anew: what is marked in them has changed. */
  redraw() {
    this.#marks += 1;
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

  #scrolled() {
    const { scrollTop, clientHeight } = this.element;
    this.follow(scrollTop + clientHeight >= this.#height - 2 * ROW);
    this.update();
  }

  get #height() {
    return (this.#buffer.end - this.#buffer.dropped) * ROW;
  }

  #size() {
    this.#sizer.style.height = `${this.#height}px`;
  }

  #show() {
    this.#size();
    this.#keepPlace();
    const from = Math.max(this.#buffer.dropped + 1, this.first - MARGIN);
    const to = Math.min(this.#buffer.end, this.first + Math.ceil(this.element.clientHeight / ROW) + MARGIN);
    this.#list.show(Array.from({ length: Math.max(0, to - from + 1) }, (_, at) => from + at));
  }

  /** Lines that are dropped at the top must not move those that are read. */
  #keepPlace() {
    const gone = this.#buffer.dropped - this.#dropped;
    this.#dropped = this.#buffer.dropped;
    if (this.following) this.element.scrollTop = this.element.scrollHeight;
    else if (gone > 0) this.element.scrollTop -= gone * ROW;
  }

  #row(number) {
    // Not in the order of the Tab key: forty links between two buttons help nobody; "Go to line" makes the same link.
    const says = { 'aria-label': `Link to line ${number}`, tabindex: -1 };
    const link = h('a', { class: 'log-number', href: this.#linkTo(number), ...says }, number);
    const text = h('span', { class: 'log-text' });
    const element = h('div', { class: 'log-row' }, link, text);
    let drawn = null;
    let marks = 0;
    const update = () => {
      element.style.transform = `translateY(${(number - 1 - this.#buffer.dropped) * ROW}px)`;
      setAttribute(element, 'data-at', this.#markOf(number));
      const line = this.#buffer.line(number);
      if (line === drawn && marks === this.#marks) return;
      [drawn, marks] = [line, this.#marks];
      text.replaceChildren(...this.#spans(number));
    };
    return { element, update };
  }

  #markOf(number) {
    if (number === this.target) return 'target';
    return number === this.#finder.current ? 'found' : null;
  }

  #spans(number) {
    return this.#finder.parts(this.#buffer.runs(number)).map(({ text, style, isMatch }) => {
      if (!isMatch && !style) return document.createTextNode(text);
      return h(isMatch ? 'mark' : 'span', { class: classesOf(style) || null }, text);
    });
  }
}
