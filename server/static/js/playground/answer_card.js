// One model's answer on the page: its state, its numbers, its text as it grows.

import { announce } from '../announcer.js';
import { h, replace, setText } from '../dom.js';
import { onNextFrame } from '../frames.js';
import { count, duration } from '../format.js';
import { badge, copyButton, iconButton, setBadge } from '../ui.js';
import { numbersOf } from './run.js';

const BLOCK = 4_000; // characters after which a line's end begins a new block, so that only the last is laid out again
const NEAR_END = 40; // pixels
const TICK_MS = 500; // the time goes on where nothing comes

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
  #drawn = 0; // characters
  #block = null;
  #follow = true;
  #isTold; // whether its end has been said, or was there before the card
  #badge = badge('busy', '');
  #stop;
  #copy;
  #text;
  #note = h('p', { class: 'note', hidden: true });
  #error = h('div', { class: 'answer-error', hidden: true });
  #numbers = { 'First token': h('dd', {}), 'Tokens/s': h('dd', {}), 'In / out': h('dd', {}), Time: h('dd', {}) };
  #draw = () => this.#show();
  #onChange = () => onNextFrame(this.#draw);
  #timer;

  constructor(answer) {
    const { model } = answer;
    this.#answer = answer;
    this.#isTold = answer.ended;
    this.#stop = iconButton(`Stop ${model}`, 'stop', () => answer.stop(), { class: 'quiet icon stop' });
    this.#copy = copyButton('Copy', () => answer.text, {
      class: 'quiet small copy',
      'aria-label': `Copy the answer of ${model}`,
    });
    this.#text = h('div', {
      class: 'answer-text',
      tabindex: 0,
      role: 'region',
      'aria-label': `Answer of ${model}`,
      on: { scroll: () => this.#scrolled() },
    });
    this.element = h('article', { class: 'answer', 'aria-label': model },
      h('header', {}, h('h2', { class: 'clip', title: model }, model), this.#badge, this.#stop, this.#copy),
      this.#text, this.#error, this.#note, numbersView(this.#numbers));
    answer.addEventListener('change', this.#onChange);
    this.#timer = setInterval(this.#onChange, TICK_MS);
    this.#show();
  }

  /** The card goes away; the answer may go on without it. */
  drop() {
    this.#answer.removeEventListener('change', this.#onChange);
    clearInterval(this.#timer);
  }

  #show() {
    const { state, text, error, ended } = this.#answer;
    setBadge(this.#badge, ...STATES[state]);
    this.element.dataset.state = state;
    this.#stop.hidden = ended;
    this.#copy.hidden = text === '';
    this.#text.hidden = state === 'failed' && text === '';
    this.#appendText(text);
    this.#showNumbers();
    const note = noteOn(this.#answer);
    this.#note.hidden = note === '';
    setText(this.#note, note);
    if (error && this.#error.hidden) this.#showError(error);
    if (this.#follow) this.#text.scrollTop = this.#text.scrollHeight;
    if (ended) this.#end();
  }

  #showError({ message, code, retryAfter }) {
    const when = retryAfter ? ` · try again in ${retryAfter} s` : '';
    replace(this.#error, h('p', {}, message), h('p', { class: 'small' }, code + when));
    this.#error.hidden = false;
  }

  #end() {
    clearInterval(this.#timer);
    const { model, error } = this.#answer;
    if (!this.#isTold) announce(`${model}: ${error ? error.message : `${this.#badge.textContent}.`}`);
    this.#isTold = true;
  }

  #appendText(text) {
    if (text.length === this.#drawn) return;
    let rest = text.slice(this.#drawn);
    this.#drawn = text.length;
    while (rest) {
      this.#block ??= this.#text.appendChild(h('div', {}, ''));
      const node = this.#block.firstChild;
      const room = Math.max(0, BLOCK - node.length);
      const end = rest.indexOf('\n', room);
      node.appendData(end < 0 ? rest : rest.slice(0, end));
      rest = end < 0 ? '' : rest.slice(end + 1);
      if (end >= 0) this.#block = null;
    }
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.#text;
    this.#follow = scrollHeight - scrollTop - clientHeight < NEAR_END;
  }

  #showNumbers() {
    const { firstMs, wholeMs, input, output, perSecond, counted } = numbersOf(this.#answer);
    setText(this.#numbers['First token'], duration(firstMs));
    setText(this.#numbers['Tokens/s'], perSecond === null ? '–' : (counted ? '' : '≈ ') + rate(perSecond));
    setText(this.#numbers['In / out'], counted ? `${input === null ? '–' : count(input)} / ${count(output)}` : '–');
    setText(this.#numbers.Time, duration(wholeMs));
  }
}

const rate = (perSecond) => (perSecond < 1000 ? perSecond.toFixed(1) : count(Math.round(perSecond)));

function numbersView(numbers) {
  const entries = Object.entries(numbers).map(([name, value]) => h('div', {}, h('dt', {}, name), value));
  return h('footer', {}, h('dl', { class: 'numbers' }, entries));
}

/** What there is to say about how an answer came to be; empty where it is as asked. */
function noteOn({ resumed, result }) {
  const { metadata, response } = result ?? {};
  return [
    resumed > 0 && 'Connection lost; the answer went on where it was.',
    metadata?.fallback_from && `Answered by ${metadata.model} in place of ${metadata.fallback_from}.`,
    ENDS[response?.stop_reason] && `The answer was ${ENDS[response.stop_reason]}.`,
    metadata?.sent && `Sent with ${Object.entries(metadata.sent).map(spell).join(', ')}.`,
  ].filter(Boolean).join(' ');
}

const spell = ([name, value]) => `${name} ${typeof value === 'object' ? JSON.stringify(value) : value}`;
