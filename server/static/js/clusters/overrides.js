// The values that a preset lets one choose: a field for each, held against the preset's own rule as it is typed.

import { h, setAttribute, setText } from '../dom.js';

/** What is wrong with a text, as a sentence; empty where nothing is. `rule`: {type, minimum, maximum, pattern, enum} */
function problemWith(rule, text) {
  if (text === '') return '';
  if (rule.enum && !rule.enum.map(String).includes(text)) return `Expected one of ${rule.enum.join(', ')}.`;
  if (rule.type === 'integer') return problemWithNumber(rule, text);
  if (rule.pattern && !matches(rule.pattern, text)) return `Expected what matches ${rule.pattern}.`;
  return '';
}

function problemWithNumber({ minimum, maximum }, text) {
  if (!/^-?\d+$/.test(text)) return 'Expected a whole number.';
  if (Number(text) < (minimum ?? -Infinity)) return `Expected at least ${minimum}.`;
  if (Number(text) > (maximum ?? Infinity)) return `Expected at most ${maximum}.`;
  return '';
}

function matches(pattern, text) {
  try {
    return new RegExp(`^(?:${pattern})$`, 'u').test(text);
  } catch {
    return true; // RE2 knows patterns that a browser does not: then the server alone says
  }
}

function valueOf(rule, text) {
  if (rule.type === 'integer') return Number(text);
  if (rule.type === 'boolean') return text === 'true';
  return text;
}

/** What the field is for; of a number its range too. A pattern is told where a value does not match it. */
function hintOf({ description, minimum, maximum }) {
  const isBounded = Number.isInteger(minimum) || Number.isInteger(maximum);
  return [description, isBounded && `${minimum ?? '…'} to ${maximum ?? '…'}`].filter(Boolean).join(' · ');
}

/** The fields of one preset. Calls `onChange` when what they say has changed. */
export class OverrideFields {
  #fields = [];
  #onChange;

  constructor(declared, onChange) {
    this.#onChange = onChange;
    this.#fields = Object.entries(declared).map(([name, rule]) => this.#field(name, rule));
    this.element = h('div', { class: 'fields two' }, this.#fields.map((field) => field.element));
  }

  get isRight() {
    return this.#firstWrong === undefined;
  }

  /** Those that are filled in. */
  get values() {
    const filled = this.#fields.filter(({ input }) => input.value.trim() !== '');
    return Object.fromEntries(filled.map(({ name, rule, input }) => [name, valueOf(rule, input.value.trim())]));
  }

  show(values) {
    for (const { name, input } of this.#fields) {
      input.value = values[name] ?? '';
      input.dispatchEvent(new Event('input'));
    }
  }

  focus() {
    (this.#firstWrong ?? this.#fields[0])?.input.focus();
  }

  get #firstWrong() {
    return this.#fields.find(({ rule, input }) => problemWith(rule, input.value.trim()) !== '');
  }

  #field(name, rule) {
    const id = `override-${name}`;
    const problem = h('p', { class: 'problem small', id: `${id}-problem`, role: 'status' });
    const input = inputOf(id, rule);
    input.addEventListener('input', () => {
      const wrong = problemWith(rule, input.value.trim());
      setText(problem, wrong);
      setAttribute(input, 'aria-invalid', wrong ? 'true' : null);
      this.#onChange();
    });
    const hint = h('p', { class: 'hint small', id: `${id}-hint` }, hintOf(rule));
    const element = h('div', { class: 'field' }, h('label', { for: id, class: 'mono' }, name), input, hint, problem);
    return { name, rule, input, element };
  }
}

function inputOf(id, rule) {
  const props = { id, 'aria-describedby': `${id}-hint ${id}-problem` };
  const choices = rule.enum ?? (rule.type === 'boolean' ? [true, false] : null);
  if (choices) {
    const asPreset = h('option', { value: '' }, rule.default ? `${rule.default} (the preset)` : 'as the preset says');
    return h('select', props, asPreset, choices.map((choice) => h('option', { value: choice }, String(choice))));
  }
  const placeholder = rule.default || 'as the preset says';
  const inputmode = rule.type === 'integer' ? 'numeric' : null;
  return h('input', { ...props, type: 'text', placeholder, inputmode, autocomplete: 'off', spellcheck: 'false' });
}
