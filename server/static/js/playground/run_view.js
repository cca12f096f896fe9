// The view of a run: its prompt, the answers side by side, stopping, and the request as code.

import { h, replaceChildren } from '../dom.js';
import { formatTime } from '../format.js';
import { button, codeBlock, copyButton, emptyState, openDialog, tabs } from '../ui.js';
import { AnswerCard } from './answer_card.js';
import { SNIPPETS } from './snippets.js';

const EMPTY_HINT = 'Write a prompt, choose one model or several, and their answers come side by side, token by token.';

export class RunView {
  #run = null;
  #cards = [];
  #onReuse;
  #stopAllButton = button('Stop all', () => this.#run.stop(), { iconName: 'stop', variant: 'danger stop-all' });
  #onChange = () => {
    this.#stopAllButton.hidden = this.#run.ended || this.#run.answers.length < 2;
  };

  constructor(onReuse) {
    this.#onReuse = onReuse;
    this.element = h('section', { class: 'run', 'aria-label': 'Answers' });
    replaceChildren(this.element, emptyState('Nothing asked yet', EMPTY_HINT));
  }

  show(run) {
    this.#detach();
    this.#run = run;
    this.#cards = run.answers.map((answer) => new AnswerCard(answer));
    for (const answer of run.answers) answer.addEventListener('change', this.#onChange);
    this.#onChange();
    const cards = this.#cards.map((card) => card.element);
    replaceChildren(this.element, this.#header(run), h('div', { class: 'answers' }, cards));
  }

  #header(run) {
    return h('header', { class: 'run-head' },
      h('div', { class: 'grow' },
        h('p', { class: 'prompt clip-2' }, run.request.text || '(no text)'),
        h('p', { class: 'dim small' }, [formatTime(run.at), ...run.names].join(' · '))),
      h('div', { class: 'row' },
        button('Use again', () => this.#onReuse(run), { iconName: 'refresh' }),
        button('As code', () => showCode(run), { iconName: 'copy' }),
        this.#stopAllButton));
  }

  /** Scrolls to the answers if they are in the lower half of the window or below it. */
  scrollIntoView() {
    if (this.element.getBoundingClientRect().top > innerHeight / 2) this.element.scrollIntoView({ block: 'start' });
  }

  #detach() {
    for (const card of this.#cards) card.dispose();
    for (const answer of this.#run?.answers ?? []) answer.removeEventListener('change', this.#onChange);
  }
}

function showCode(run) {
  const panel = tabs('The request as code', Object.entries(SNIPPETS).map(([name, render]) => [name, () => {
    const source = render(run);
    return [codeBlock(name, source), copyButton(`Copy ${name}`, () => source, { class: 'primary' })];
  }]));
  const close = button('Close', () => dialog.close());
  const dialog = openDialog('The request as code', { body: panel, actions: close, class: 'wide' });
}
