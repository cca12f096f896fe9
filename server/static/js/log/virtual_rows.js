// Virtual scrolling of a log: only the visible lines are in the DOM.

import { h, KeyedList, setAttribute } from '../dom.js';
import { scheduleRender } from '../render_queue.js';
import { styleClasses } from './ansi.js';

const ROW_HEIGHT = 20; // pixels; the same as in log.css
const OVERSCAN = 12; // rows beyond each edge, so that a scroll of a few lines renders nothing

/** Fires 'follow' when following starts or stops. `hrefOf(number)` returns the URL of a line. */
export class VirtualRows extends EventTarget {
  following = true;
  target = null; // the line that the URL names
  #buffer;
  #search;
  #hrefOf;
  #sizer = h('div', { class: 'log-sizer' });
  #list = new KeyedList(this.#sizer, (number) => number, (number) => this.#createRow(number));
  #highlightVersion = 0; // incremented when highlights change
  #renderedDropped = 0;
  #resizeObserver = new ResizeObserver(() => this.update());
  #scheduledRender = () => this.#render();

  constructor(buffer, search, hrefOf) {
    super();
    this.#buffer = buffer;
    this.#search = search;
    this.#hrefOf = hrefOf;
    const props = { class: 'log-rows', tabindex: 0, role: 'region', 'aria-label': 'Lines of the log' };
    this.element = h('div', props, this.#sizer);
    this.element.addEventListener('scroll', () => this.#onScroll(), { passive: true });
    this.#resizeObserver.observe(this.element);
  }

  /** Schedules a render of what has changed. */
  update() {
    scheduleRender(this.#scheduledRender);
  }

  /** Schedules a render of every row: highlights have changed. */
  updateHighlights() {
    this.#highlightVersion += 1;
    this.update();
  }

  setFollowing(following) {
    if (following === this.following) return;
    this.following = following;
    this.dispatchEvent(new Event('follow'));
    if (following) this.update();
  }

  /** Scrolls a line to the middle and stops following. */
  scrollToLine(number) {
    this.setFollowing(false);
    this.#updateHeight();
    this.element.scrollTop = (number - 0.5 - this.#buffer.droppedLines) * ROW_HEIGHT - this.element.clientHeight / 2;
    this.update();
  }

  /** The number of the first visible line. */
  get firstVisible() {
    return this.#buffer.droppedLines + Math.floor(this.element.scrollTop / ROW_HEIGHT) + 1;
  }

  dispose() {
    this.#resizeObserver.disconnect();
  }

  #onScroll() {
    const { scrollTop, clientHeight } = this.element;
    this.setFollowing(scrollTop + clientHeight >= this.#height - 2 * ROW_HEIGHT);
    this.update();
  }

  get #height() {
    return (this.#buffer.totalLines - this.#buffer.droppedLines) * ROW_HEIGHT;
  }

  #updateHeight() {
    this.#sizer.style.height = `${this.#height}px`;
  }

  #render() {
    this.#updateHeight();
    this.#adjustScroll();
    const visibleRows = Math.ceil(this.element.clientHeight / ROW_HEIGHT);
    const from = Math.max(this.#buffer.droppedLines + 1, this.firstVisible - OVERSCAN);
    const to = Math.min(this.#buffer.totalLines, this.firstVisible + visibleRows + OVERSCAN);
    this.#list.render(Array.from({ length: Math.max(0, to - from + 1) }, (_, index) => from + index));
  }

  /** Keeps the visible lines in place when lines at the top are dropped. */
  #adjustScroll() {
    const newlyDropped = this.#buffer.droppedLines - this.#renderedDropped;
    this.#renderedDropped = this.#buffer.droppedLines;
    if (this.following) this.element.scrollTop = this.element.scrollHeight;
    else if (newlyDropped > 0) this.element.scrollTop -= newlyDropped * ROW_HEIGHT;
  }

  #createRow(number) {
    // Not in the tab order: forty links between two buttons help nobody, and "Go to line" makes the same link.
    const labels = { 'aria-label': `Link to line ${number}`, tabindex: -1 };
    const link = h('a', { class: 'log-number', href: this.#hrefOf(number), ...labels }, number);
    const text = h('span', { class: 'log-text' });
    const element = h('div', { class: 'log-row' }, link, text);
    let renderedLine = null;
    let renderedVersion = 0;
    const update = () => {
      element.style.transform = `translateY(${(number - 1 - this.#buffer.droppedLines) * ROW_HEIGHT}px)`;
      setAttribute(element, 'data-highlight', this.#highlightOf(number));
      const line = this.#buffer.line(number);
      if (line === renderedLine && renderedVersion === this.#highlightVersion) return;
      [renderedLine, renderedVersion] = [line, this.#highlightVersion];
      text.replaceChildren(...this.#spans(number));
    };
    return { element, update };
  }

  #highlightOf(number) {
    if (number === this.target) return 'target';
    return number === this.#search.current ? 'match' : null;
  }

  #spans(number) {
    return this.#search.highlight(this.#buffer.runs(number)).map(({ text, style, isMatch }) => {
      if (!isMatch && !style) return document.createTextNode(text);
      return h(isMatch ? 'mark' : 'span', { class: styleClasses(style) || null }, text);
    });
  }
}
