// The fields of a preset's overrides: one for each, validated on input against the preset's rule.

import { h, setAttribute, setText } from '../dom.js';

/** The error message for a text; empty if it is valid. `rule`: {type, minimum, maximum, pattern, enum} */
function validate(rule, text) {
  if (text === '') return '';
  if (rule.enum && !rule.enum.map(String).includes(text)) return `Expected one of ${rule.enum.join(', ')}.`;
  if (rule.type === 'integer') return validateInteger(rule, text);
  if (rule.pattern && !matchesPattern(rule.pattern, text)) return `Expected what matches ${rule.pattern}.`;
  return '';
}

function validateInteger({ minimum, maximum }, text) {
  if (!/^-?\d+$/.test(text)) return 'Expected a whole number.';
  if (Number(text) < (minimum ?? -Infinity)) return `Expected at least ${minimum}.`;
  if (Number(text) > (maximum ?? Infinity)) return `Expected at most ${maximum}.`;
  return '';
}

function matchesPattern(pattern, text) {
  try {
    return new RegExp(`^(?:${pattern})$`, 'u').test(text);
  } catch {
    return true; // RE2 has syntax that a browser lacks: then only the server validates
  }
}

function parseValue(rule, text) {
  if (rule.type === 'integer') return Number(text);
  if (rule.type === 'boolean') return text === 'true';
  return text;
}

/** The description and the range of a number. A pattern is shown only where a value does not match it. */
function hintText({ description, minimum, maximum }) {
  const hasRange = Number.isInteger(minimum) || Number.isInteger(maximum);
  return [description, hasRange && `${minimum ?? '…'} to ${maximum ?? '…'}`].filter(Boolean).join(' · ');
}

/** The override fields of one preset. Calls `onChange()` on each input. */
export class OverrideFields {
  #fields = [];
  #onChange;

  constructor(rules, onChange) {
    this.#onChange = onChange;
    this.#fields = Object.entries(rules).map(([name, rule]) => this.#createField(name, rule));
    this.element = h('div', { class: 'fields two' }, this.#fields.map((field) => field.element));
  }

  get isValid() {
    return this.#firstInvalid === undefined;
  }

  /** The values of the fields that are not empty. */
  get values() {
    const filled = this.#fields.filter(({ input }) => input.value.trim() !== '');
    return Object.fromEntries(filled.map(({ name, rule, input }) => [name, parseValue(rule, input.value.trim())]));
  }

  focusInvalid() {
    (this.#firstInvalid ?? this.#fields[0])?.input.focus();
  }

  get #firstInvalid() {
    return this.#fields.find(({ rule, input }) => validate(rule, input.value.trim()) !== '');
  }

  #createField(name, rule) {
    const id = `override-${name}`;
    const problem = h('p', { class: 'problem small', id: `${id}-problem`, role: 'status' });
    const input = createInput(id, rule);
    input.addEventListener('input', () => {
      const message = validate(rule, input.value.trim());
      setText(problem, message);
      setAttribute(input, 'aria-invalid', message ? 'true' : null);
      this.#onChange();
    });
    const hint = h('p', { class: 'hint small', id: `${id}-hint` }, hintText(rule));
    const element = h('div', { class: 'field' }, h('label', { for: id, class: 'mono' }, name), input, hint, problem);
    return { name, rule, input, element };
  }
}

function createInput(id, rule) {
  const props = { id, 'aria-describedby': `${id}-hint ${id}-problem` };
  const choices = rule.enum ?? (rule.type === 'boolean' ? [true, false] : null);
  if (choices) {
    const presetLabel = rule.default ? `${rule.default} (the preset)` : 'as the preset says';
    const presetOption = h('option', { value: '' }, presetLabel);
    return h('select', props, presetOption, choices.map((choice) => h('option', { value: choice }, String(choice))));
  }
  const placeholder = rule.default || 'as the preset says';
  const inputmode = rule.type === 'integer' ? 'numeric' : null;
  return h('input', { ...props, type: 'text', placeholder, inputmode, autocomplete: 'off', spellcheck: 'false' });
}
