// One model's answer on the page: its state, its numbers, its text as it grows.

import { h, setText } from '../dom.js';
import { onNextFrame } from '../frames.js';
import { count, duration } from '../format.js';
import { announce, badge, copyButton, iconButton, setBadge } from '../ui.js';
import { numbersOf } from './run.js';

const BLOCK = 4_000; // characters after which a line's end begins a new block, so that only the last is laid out again
const NEAR_END = 40; // pixels

const STATES = {
  waiting: ['busy', 'Waiting'],
  streaming: ['busy', 'Answering'],
  done: ['ok', 'Done'],
  failed: ['bad', 'Failed'],
  stopped: ['idle', 'Stopped'],
};
const ENDS = { max_tokens: 'cut at max_tokens', stop_sequence: 'stopped at a stop text', content_filter: 'filtered' };

export class AnswerCard {
  #answer;
  #drawn = 0;
  #block = null;
  #follow = true;
  #draw = () => this.#show();
  #timer = null;

  constructor(answer) {
    this.#answer = answer;
    const title = `answer-${Math.random().toString(36).slice(2)}`;
    this.state = badge('busy', '');
    this.stop = iconButton(`Stop ${answer.model}`, 'stop', () => answer.stop(), { class: 'quiet icon stop' });
    this.copy = copyButton('Copy', () => answer.text, { class: 'quiet small', 'aria-label': `Copy the answer of ${answer.model}` });
    this.note = h('p', { class: 'note', hidden: true });
    this.error = h('div', { class: 'answer-error', hidden: true });
    this.text = h('div', { class: 'answer-text', tabindex: 0, role: 'region', 'aria-label': `Answer of ${answer.model}`, on: { scroll: () => this.#scrolled() } });
    this.numbers = Object.fromEntries(['First token', 'Tokens/s', 'In / out', 'Time'].map((name) => [name, h('dd', {}, '–')]));
    this.element = h('article', { class: 'answer', 'aria-labelledby': title },
      h('header', {}, h('h2', { id: title, class: 'clip', title: answer.model }, answer.model), this.copy, this.state, this.stop),
      this.note, this.error, this.text,
      h('footer', {}, h('dl', { class: 'numbers' }, Object.entries(this.numbers).map(([name, value]) => h('div', {}, h('dt', {}, name), value)))));
    this.onChange = () => onNextFrame(this.#draw);
    answer.addEventListener('change', this.onChange);
    this.#timer = setInterval(this.onChange, 500); // the time goes on where nothing comes
    this.#show();
  }

  /** The card goes away; the answer may go on without it. */
  drop() {
    this.#answer.removeEventListener('change', this.onChange);
    clearInterval(this.#timer);
  }

  #show() {
    const { state, text, error, model, resumed, ended } = this.#answer;
    const before = this.state.textContent;
    setBadge(this.state, ...STATES[state]);
    this.element.dataset.state = state;
    this.stop.hidden = ended;
    this.copy.hidden = text === '';
    this.#appendText(text);
    this.#showNumbers();
    const notes = this.#notes(resumed);
    this.note.hidden = notes === '';
    setText(this.note, notes);
    this.error.hidden = !error;
    if (error && !this.error.firstChild) {
      this.error.append(h('p', {}, error.message), h('p', { class: 'small dim' }, error.code, error.retryAfter && ` · try again in ${error.retryAfter} s`));
    }
    if (ended) {
      clearInterval(this.#timer);
      if (before && before !== this.state.textContent) announce(`${model}: ${error ? error.message : this.state.textContent}.`);
    }
  }

  #appendText(text) {
    if (text.length === this.#drawn) return;
    let rest = text.slice(this.#drawn);
    this.#drawn = text.length;
    while (rest) {
      this.#block ??= this.text.appendChild(h('div', {}, ''));
      const node = this.#block.firstChild ?? this.#block.appendChild(document.createTextNode(''));
      const room = Math.max(0, BLOCK - node.length);
      const end = rest.indexOf('\n', room);
      node.appendData(end < 0 ? rest : rest.slice(0, end));
      rest = end < 0 ? '' : rest.slice(end + 1);
      if (end >= 0) this.#block = null;
    }
    if (this.#follow) this.text.scrollTop = this.text.scrollHeight;
  }

  #scrolled() {
    this.#follow = this.text.scrollHeight - this.text.scrollTop - this.text.clientHeight < NEAR_END;
  }

  #showNumbers() {
    const { firstMs, wholeMs, input, output, perSecond, counted } = numbersOf(this.#answer);
    setText(this.numbers['First token'], duration(firstMs));
    setText(this.numbers['Tokens/s'], perSecond === null ? '–' : `${counted ? '' : '≈ '}${perSecond < 1000 ? perSecond.toFixed(1) : count(Math.round(perSecond))}`);
    setText(this.numbers['In / out'], counted ? `${input === null ? '–' : count(input)} / ${count(output)}` : '–');
    setText(this.numbers.Time, duration(wholeMs));
  }

  #notes(resumed) {
    const { metadata, response } = this.#answer.result ?? {};
    return [
      resumed > 0 && 'Connection lost; the answer went on where it was.',
      metadata?.fallback_from && `Answered by ${metadata.model} in place of ${metadata.fallback_from}.`,
      ENDS[response?.stop_reason] && `The answer was ${ENDS[response.stop_reason]}.`,
      metadata?.sent && `Sent with ${Object.entries(metadata.sent).map(([name, value]) => `${name} ${typeof value === 'object' ? JSON.stringify(value) : value}`).join(', ')}.`,
    ].filter(Boolean).join(' ');
  }
}
