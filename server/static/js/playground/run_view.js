// The run that is shown: its prompt, its answers side by side, stopping, copying it as code.

import { h, replace } from '../dom.js';
import { time } from '../format.js';
import { button, codeBlock, copyButton, emptyState, openDialog, tabs } from '../ui.js';
import { AnswerCard } from './answer_card.js';
import { SNIPPETS } from './snippets.js';

const NOTHING = 'Write a prompt, choose one model or several, and their answers come side by side, token by token.';

export class RunView {
  #run = null;
  #cards = [];
  #onReuse;
  #stopAll = button('Stop all', () => this.#run.stop(), { art: 'stop', kind: 'danger stop-all' });
  #onChange = () => {
    this.#stopAll.hidden = this.#run.ended || this.#run.answers.length < 2;
  };

  constructor(onReuse) {
    this.#onReuse = onReuse;
    this.element = h('section', { class: 'run', 'aria-label': 'Answers' });
    replace(this.element, emptyState('Nothing asked yet', NOTHING));
  }

  show(run) {
    this.#leave();
    this.#run = run;
    this.#cards = run.answers.map((answer) => new AnswerCard(answer));
    for (const answer of run.answers) answer.addEventListener('change', this.#onChange);
    this.#onChange();
    replace(this.element, this.#head(run), h('div', { class: 'answers' }, this.#cards.map((card) => card.element)));
  }

  #head(run) {
    return h('header', { class: 'run-head' },
      h('div', { class: 'grow' },
        h('p', { class: 'prompt clip-2' }, run.request.text || '(no text)'),
        h('p', { class: 'dim small' }, [time(run.at), ...run.names].join(' · '))),
      h('div', { class: 'row' },
        button('Use again', () => this.#onReuse(run), { art: 'again' }),
        button('As code', () => showCode(run), { art: 'copy' }),
        this.#stopAll));
  }

  /** Scrolls to the answers where they are below what is seen. */
  reveal() {
    if (this.element.getBoundingClientRect().top > innerHeight / 2) this.element.scrollIntoView({ block: 'start' });
  }

  #leave() {
    for (const card of this.#cards) card.drop();
    for (const answer of this.#run?.answers ?? []) answer.removeEventListener('change', this.#onChange);
  }
}

function showCode(run) {
  const panel = tabs('The request as code', Object.entries(SNIPPETS).map(([name, make]) => [name, () => {
    const source = make(run);
    return [codeBlock(name, source), copyButton(`Copy ${name}`, () => source, { class: 'primary' })];
  }]));
  const close = button('Close', () => dialog.close());
  const dialog = openDialog('The request as code', { body: panel, actions: close, class: 'wide' });
}
