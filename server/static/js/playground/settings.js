// The settings of a request: optional parameters; only those that are set are sent.

import { h } from '../dom.js';

const NUMBER_FIELDS = [
  ['max_tokens', 'Max tokens', { min: 1, step: 1, placeholder: '1024' }],
  ['temperature', 'Temperature', { min: 0, max: 2, step: 0.1, placeholder: '0.1' }],
  ['top_p', 'Top p', { min: 0, max: 1, step: 0.05, placeholder: 'none' }],
];

export class Settings {
  #inputs = {};

  constructor() {
    for (const [name, , limits] of NUMBER_FIELDS) {
      this.#inputs[name] = h('input', { type: 'number', id: `set-${name}`, inputmode: 'decimal', ...limits });
    }
    this.#inputs.stop = h('input', { type: 'text', id: 'set-stop', placeholder: 'none', spellcheck: 'false' });
    this.#inputs.system = h('textarea', { id: 'set-system', rows: 2, placeholder: 'none' });
    this.element = h('details', { class: 'settings' }, h('summary', {}, 'Settings'),
      h('div', { class: 'fields three' }, NUMBER_FIELDS.map(([name, label]) => this.#createField(name, label))),
      this.#createField('stop', 'Stop at this text'),
      this.#createField('system', 'System prompt'));
  }

  /** The values of the fields that are set, by their names in the API. */
  get values() {
    const filled = Object.entries(this.#inputs).filter(([, input]) => input.value !== '');
    return Object.fromEntries(filled.map(([name, input]) => [name, parseValue(input)]));
  }

  setValues(values) {
    for (const [name, input] of Object.entries(this.#inputs)) input.value = values[name] ?? '';
  }

  /** Whether all values are valid; if not, the browser shows the first invalid field. */
  reportValidity() {
    const invalid = Object.values(this.#inputs).find((input) => !input.checkValidity());
    if (invalid) {
      this.element.open = true;
      invalid.reportValidity();
    }
    return !invalid;
  }

  #createField(name, label) {
    return h('div', { class: 'field' }, h('label', { for: `set-${name}` }, label), this.#inputs[name]);
  }
}

const parseValue = (input) => (input.type === 'number' ? input.valueAsNumber : input.value);
