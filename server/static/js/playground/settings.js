// The parameters of a request beside its text: only those that somebody set are sent.

import { h } from '../dom.js';

const NUMBERS = [
  ['max_tokens', 'Max tokens', { min: 1, step: 1, placeholder: '1024' }],
  ['temperature', 'Temperature', { min: 0, max: 2, step: 0.1, placeholder: '0.1' }],
  ['top_p', 'Top p', { min: 0, max: 1, step: 0.05, placeholder: 'none' }],
];

export class Settings {
  #inputs = {};

  constructor() {
    for (const [name, , limits] of NUMBERS) {
      this.#inputs[name] = h('input', { type: 'number', id: `set-${name}`, inputmode: 'decimal', ...limits });
    }
    this.#inputs.stop = h('input', { type: 'text', id: 'set-stop', placeholder: 'none', spellcheck: 'false' });
    this.#inputs.system = h('textarea', { id: 'set-system', rows: 2, placeholder: 'none' });
    this.element = h('details', { class: 'settings' }, h('summary', {}, 'Settings'),
      h('div', { class: 'fields three' }, NUMBERS.map(([name, label]) => this.#field(name, label))),
      this.#field('stop', 'Stop at this text'),
      this.#field('system', 'System prompt'));
  }

  /** The fields of the API that are set. */
  get values() {
    const filled = Object.entries(this.#inputs).filter(([, input]) => input.value !== '');
    return Object.fromEntries(filled.map(([name, input]) => [name, valueOf(input)]));
  }

  show(values) {
    for (const [name, input] of Object.entries(this.#inputs)) input.value = values[name] ?? '';
  }

  /** Whether all that is set may be sent; if not, the browser shows where. */
  check() {
    const wrong = Object.values(this.#inputs).find((input) => !input.checkValidity());
    if (wrong) {
      this.element.open = true;
      wrong.reportValidity();
    }
    return !wrong;
  }

  #field(name, label) {
    return h('div', { class: 'field' }, h('label', { for: `set-${name}` }, label), this.#inputs[name]);
  }
}

const valueOf = (input) => (input.type === 'number' ? input.valueAsNumber : input.value);
