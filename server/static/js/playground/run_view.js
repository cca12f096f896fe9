// The run that is shown: its prompt, its answers side by side, stopping, copying it as code.

import { h, replace, setText } from '../dom.js';
import { time } from '../format.js';
import { button, copyButton, emptyState, openDialog, tabs } from '../ui.js';
import { AnswerCard } from './answer_card.js';
import { SNIPPETS } from './snippets.js';

export class RunView {
  #run = null;
  #cards = [];
  #onReuse;

  constructor(onReuse) {
    this.#onReuse = onReuse;
    this.element = h('section', { class: 'run', 'aria-label': 'Answers' });
    this.#showNothing();
  }

  get run() {
    return this.#run;
  }

  show(run) {
    this.#leave();
    this.#run = run;
    this.#cards = run.answers.map((answer) => new AnswerCard(answer));
    this.stopAll = button('Stop all', () => run.stop(), { art: 'stop', kind: 'danger' });
    this.onChange = () => {
      this.stopAll.hidden = run.ended || run.answers.length < 2;
    };
    for (const answer of run.answers) answer.addEventListener('change', this.onChange);
    this.onChange();
    const prompt = h('p', { class: 'prompt clip-2' });
    setText(prompt, run.request.text || '(no text)');
    replace(this.element,
      h('header', { class: 'run-head' },
        h('div', { class: 'grow' }, prompt, h('p', { class: 'dim small' }, [time(run.at), ...run.names].join(' · '))),
        h('div', { class: 'row' }, this.stopAll,
          button('Use again', () => this.#onReuse(run), { art: 'again' }),
          button('As code', () => showCode(run), { art: 'copy' }))),
      h('div', { class: 'answers' }, this.#cards.map((card) => card.element)));
  }

  /** Scrolls to the answers where they are below what is seen. */
  reveal() {
    if (this.element.getBoundingClientRect().top > innerHeight / 2) this.element.scrollIntoView({ block: 'start' });
  }

  #leave() {
    for (const card of this.#cards) card.drop();
    for (const answer of this.#run?.answers ?? []) answer.removeEventListener('change', this.onChange);
    this.#cards = [];
  }

  #showNothing() {
    replace(this.element, emptyState('Nothing asked yet', 'Write a prompt, choose one model or several, and their answers come side by side, token by token.'));
  }
}

function showCode(run) {
  const sources = Object.fromEntries(Object.entries(SNIPPETS).map(([name, make]) => [name, make(run)]));
  const panel = tabs('The request as code', Object.entries(sources).map(([name, source]) => [
    name,
    () => [h('pre', { class: 'code', data: { language: name }, tabindex: 0 }, source), copyButton(`Copy ${name}`, () => source, { class: 'primary' })],
  ]));
  const close = button('Close', () => dialog.close());
  const dialog = openDialog('The request as code', { body: panel, actions: close });
  dialog.classList.add('wide');
}
