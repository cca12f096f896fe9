// Shows /api/openapi.json: addresses by group, their parameters, bodies and answers, and the schemas behind those.

const at = (id) => document.getElementById(id);
const description = await (await fetch('/api/openapi.json')).json();
const schemas = description.components.schemas;

/** An element with attributes and children; texts become text, so nothing of the description is ever markup. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** A text in which `words` between backticks are code. */
const prose = (text, attributes = {}) =>
  element('p', attributes, ...text.split('`').map((part, n) => (n % 2 ? element('code', {}, part) : part)));

const nameOf = (schema) => schema.$ref?.split('/').pop();

/** A schema in a few words: `string or list of FunctionTool or null`. */
function spell(schema) {
  if (nameOf(schema)) return nameOf(schema);
  if (schema.anyOf) return schema.anyOf.map(spell).join(' or ');
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(', ');
  if (schema.type === 'array') return `list of ${schema.items ? spell(schema.items) : 'anything'}`;
  const values = schema.additionalProperties;
  if (schema.type === 'object' && values?.type) return `map of ${spell(values)}`;
  return schema.type ?? 'anything';
}

const BOUNDS = {minimum: 'at least', maximum: 'at most', minItems: 'items: at least', maxItems: 'items: at most',
  pattern: 'pattern', format: 'format', contentEncoding: 'encoded as', default: 'default'};

/** What bounds a value: `at least 1, default 1024`. */
function bounds(schema) {
  const all = [schema, ...(schema.anyOf ?? [])];
  return Object.entries(BOUNDS)
    .flatMap(([key, words]) => all.filter((one) => one[key] !== undefined && one[key] !== null)
      .map((one) => `${words} ${typeof one[key] === 'string' ? one[key] : JSON.stringify(one[key])}`))
    .join(', ');
}

/** The names of all schemas that this one refers to. */
function referred(schema) {
  if (nameOf(schema)) return [nameOf(schema)];
  return [...(schema.anyOf ?? []), ...(schema.items ? [schema.items] : [])].flatMap(referred);
}

function table(heads, rows) {
  return element('table', {},
    element('thead', {}, element('tr', {}, ...heads.map((head) => element('th', {}, head)))),
    element('tbody', {}, ...rows.map((cells) => element('tr', {}, ...cells.map((cell) => element('td', {}, cell))))));
}

/** A schema, opened on demand: those that it refers to are made when it is. */
function shown(name, seen = []) {
  const schema = schemas[name];
  const box = element('details', {}, element('summary', {}, element('code', {}, name)));
  box.addEventListener('toggle', () => box.children.length === 1 && box.append(inside(schema, [...seen, name])), {});
  return box;
}

function inside(schema, seen) {
  const fields = Object.entries(schema.properties ?? {});
  const needed = new Set(schema.required ?? []);
  const rows = fields.map(([field, one]) => [
    element('code', {}, field + (needed.has(field) ? ' *' : '')), spell(one),
    element('span', {class: 'quiet'}, [one.description, bounds(one)].filter(Boolean).join('; ')),
  ]);
  const others = [...new Set([schema, ...fields.map(([, one]) => one)].flatMap(referred))];
  return element('div', {class: 'inside'},
    schema.description ? prose(schema.description) : null,
    rows.length ? table(['field (* required)', 'type', ''], rows) : null,
    ...others.filter((name) => !seen.includes(name)).map((name) => shown(name, seen)));
}

/** What a body holds, by its content types. */
function content(described) {
  const kinds = Object.entries(described ?? {});
  const names = [...new Set(kinds.flatMap(([, {schema}]) => (schema ? referred(schema) : [])))];
  const types = element('code', {}, kinds.map(([kind]) => kind).join(', '));
  return [element('p', {}, types), ...names.map((name) => shown(name))];
}

function operation(method, path, one) {
  const parameters = (one.parameters ?? []).map((parameter) => [
    element('code', {}, parameter.name + (parameter.required ? ' *' : '')),
    `${parameter.in}: ${spell(parameter.schema)}`,
    element('span', {class: 'quiet'}, [parameter.description, bounds(parameter.schema)].filter(Boolean).join('; ')),
  ]);
  const answers = Object.entries(one.responses);
  const good = answers.filter(([status]) => status < 400);
  const errors = answers.filter(([status]) => status >= 400);
  return element('details', {id: `${method}-${path}`, 'data-words': JSON.stringify([path, one]).toLowerCase()},
    element('summary', {}, element('span', {class: `method ${method}`}, method), element('code', {}, path), ' ',
      element('span', {class: 'quiet'}, one.summary)),
    element('div', {class: 'inside'},
      one.description ? prose(one.description) : null,
      parameters.length ? element('h3', {}, 'Parameters') : null,
      parameters.length ? table(['name (* required)', 'type', ''], parameters) : null,
      ...(one.requestBody ? [element('h3', {}, 'Body'), ...content(one.requestBody.content)] : []),
      ...good.flatMap(([status, {description: words, content: bodies}]) =>
        [element('h3', {}, `${status} ${words}`), ...(bodies ? content(bodies) : [])]),
      element('h3', {}, 'Errors'),
      table(['status', ''], errors.map(([status, {description: words}]) => [element('code', {}, status), words])),
      ...content(errors[0]?.[1].content)));
}

function show() {
  const groups = new Map(description.tags.map(({name}) => [name, []]));
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, one] of Object.entries(methods)) groups.get(one.tags[0]).push(operation(method, path, one));
  }
  at('about').textContent = description.info.description;
  at('addresses').replaceChildren(...[...groups].map(([name, operations]) =>
    element('section', {id: name}, element('h2', {}, name), ...operations)),
  element('section', {id: 'Schemas'}, element('h2', {}, 'Schemas'), ...Object.keys(schemas).sort().map((name) => {
    const box = shown(name);
    box.dataset.words = JSON.stringify([name, schemas[name]]).toLowerCase();
    return box;
  })));
  at('groups').append(...[...groups.keys(), 'Schemas'].map((name) =>
    element('a', {href: `#${encodeURIComponent(name)}`}, name)));
}

function find() {
  const word = at('find').value.trim().toLowerCase();
  for (const box of document.querySelectorAll('section > details')) box.hidden = !box.dataset.words.includes(word);
  for (const section of document.querySelectorAll('section')) {
    section.hidden = !section.querySelector(':scope > details:not([hidden])');
  }
}

show();
at('find').addEventListener('input', find);
