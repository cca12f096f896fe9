// The card of one model's answer: its state, metrics, error, and its text while it streams.

import { announce } from '../announcer.js';
import { h, replaceChildren, setText } from '../dom.js';
import { formatCount, formatDuration } from '../format.js';
import { scheduleRender } from '../render_queue.js';
import { badge, copyButton, iconButton, setBadge } from '../ui.js';
import { answerMetrics } from './run.js';

const BLOCK_LENGTH = 4_000; // characters; the next line then gets a new element: only the last one needs layout
const FOLLOW_MARGIN = 40; // pixels from the end, within which the card follows the text
const TICK_MS = 500; // the duration must also grow while no chunk arrives

const STATE_BADGES = {
  waiting: ['busy', 'Waiting'],
  streaming: ['busy', 'Answering'],
  done: ['ok', 'Done'],
  failed: ['bad', 'Failed'],
  stopped: ['idle', 'Stopped'],
};
const STOP_REASONS = {
  max_tokens: 'cut at max_tokens',
  stop_sequence: 'stopped at a stop text',
  content_filter: 'filtered',
};

export class AnswerCard {
  #answer;
  #renderedLength = 0; // characters
  #block = null;
  #isFollowing = true;
  #isEndAnnounced; // also true where the answer had ended before the card was created
  #badge = badge('busy', '');
  #stopButton;
  #copyButton;
  #text;
  #note = h('p', { class: 'note', hidden: true });
  #error = h('div', { class: 'answer-error', hidden: true });
  #metrics = { 'First token': h('dd', {}), 'Tokens/s': h('dd', {}), 'In / out': h('dd', {}), Time: h('dd', {}) };
  #scheduledRender = () => this.#render();
  #onChange = () => scheduleRender(this.#scheduledRender);
  #timer;

  constructor(answer) {
    const { model } = answer;
    this.#answer = answer;
    this.#isEndAnnounced = answer.ended;
    this.#stopButton = iconButton(`Stop ${model}`, 'stop', () => answer.stop(), { class: 'quiet icon stop' });
    this.#copyButton = copyButton('Copy', () => answer.text, {
      class: 'quiet small copy',
      'aria-label': `Copy the answer of ${model}`,
    });
    this.#text = h('div', {
      class: 'answer-text',
      tabindex: 0,
      role: 'region',
      'aria-label': `Answer of ${model}`,
      on: { scroll: () => this.#onScroll() },
    });
    this.element = h('article', { class: 'answer', 'aria-label': model },
      h('header', {}, h('h2', { class: 'clip', title: model }, model), this.#badge, this.#stopButton, this.#copyButton),
      this.#text, this.#error, this.#note, metricsView(this.#metrics));
    answer.addEventListener('change', this.#onChange);
    this.#timer = setInterval(this.#onChange, TICK_MS);
    this.#render();
  }

  /** Detaches the card from its answer, which may still be streaming. */
  dispose() {
    this.#answer.removeEventListener('change', this.#onChange);
    clearInterval(this.#timer);
  }

  #render() {
    const { state, text, error, ended } = this.#answer;
    setBadge(this.#badge, ...STATE_BADGES[state]);
    this.element.dataset.state = state;
    this.#stopButton.hidden = ended;
    this.#copyButton.hidden = text === '';
    this.#text.hidden = state === 'failed' && text === '';
    this.#appendText(text);
    this.#renderMetrics();
    const note = noteText(this.#answer);
    this.#note.hidden = note === '';
    setText(this.#note, note);
    if (error && this.#error.hidden) this.#renderError(error);
    if (this.#isFollowing) this.#text.scrollTop = this.#text.scrollHeight;
    if (ended) this.#onEnd();
  }

  #renderError({ message, code, retryAfter }) {
    const when = retryAfter ? ` · try again in ${retryAfter} s` : '';
    replaceChildren(this.#error, h('p', {}, message), h('p', { class: 'small' }, code + when));
    this.#error.hidden = false;
  }

  #onEnd() {
    clearInterval(this.#timer);
    const { model, error } = this.#answer;
    if (!this.#isEndAnnounced) announce(`${model}: ${error ? error.message : `${this.#badge.textContent}.`}`);
    this.#isEndAnnounced = true;
  }

  #appendText(text) {
    if (text.length === this.#renderedLength) return;
    let remaining = text.slice(this.#renderedLength);
    this.#renderedLength = text.length;
    while (remaining) {
      this.#block ??= this.#text.appendChild(h('div', {}, ''));
      const node = this.#block.firstChild;
      const room = Math.max(0, BLOCK_LENGTH - node.length);
      const end = remaining.indexOf('\n', room);
      node.appendData(end < 0 ? remaining : remaining.slice(0, end));
      remaining = end < 0 ? '' : remaining.slice(end + 1);
      if (end >= 0) this.#block = null;
    }
  }

  #onScroll() {
    const { scrollHeight, scrollTop, clientHeight } = this.#text;
    this.#isFollowing = scrollHeight - scrollTop - clientHeight < FOLLOW_MARGIN;
  }

  #renderMetrics() {
    const metrics = answerMetrics(this.#answer);
    const { inputTokens, outputTokens, isCounted } = metrics;
    setText(this.#metrics['First token'], formatDuration(metrics.timeToFirstTokenMs));
    setText(this.#metrics['Tokens/s'], formatRate(metrics.tokensPerSecond, isCounted));
    const input = inputTokens === null ? '–' : formatCount(inputTokens);
    setText(this.#metrics['In / out'], isCounted ? `${input} / ${formatCount(outputTokens)}` : '–');
    setText(this.#metrics.Time, formatDuration(metrics.durationMs));
  }
}

function formatRate(perSecond, isCounted) {
  if (perSecond === null) return '–';
  const rate = perSecond < 1000 ? perSecond.toFixed(1) : formatCount(Math.round(perSecond));
  return isCounted ? rate : `≈ ${rate}`;
}

function metricsView(metrics) {
  const entries = Object.entries(metrics).map(([name, value]) => h('div', {}, h('dt', {}, name), value));
  return h('footer', {}, h('dl', { class: 'metrics' }, entries));
}

/** A note on an interrupted, truncated or replaced answer, or on changed parameters; else empty. */
function noteText({ resumed, result }) {
  const { metadata, response } = result ?? {};
  return [
    resumed > 0 && 'Connection lost; the answer went on where it was.',
    metadata?.fallback_from && `Answered by ${metadata.model} in place of ${metadata.fallback_from}.`,
    STOP_REASONS[response?.stop_reason] && `The answer was ${STOP_REASONS[response.stop_reason]}.`,
    metadata?.sent && `Sent with ${Object.entries(metadata.sent).map(formatParameter).join(', ')}.`,
  ].filter(Boolean).join(' ');
}

const formatParameter = ([name, value]) => `${name} ${typeof value === 'object' ? JSON.stringify(value) : value}`;
