// The API reference: renders /api/openapi.json as operations by tag, with parameters, bodies, responses and schemas.

const byId = (id) => document.getElementById(id);
const openapi = await (await fetch('/api/openapi.json')).json();
const schemas = openapi.components.schemas;

/** An element with attributes and children. Strings become text nodes, so the document can never inject markup. */
function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** A paragraph in which text between backticks becomes code. */
const paragraph = (text, attributes = {}) =>
  element('p', attributes, ...text.split('`').map((part, index) => (index % 2 ? element('code', {}, part) : part)));

const refName = (schema) => schema.$ref?.split('/').pop();

/** The type of a schema, such as `string or list of FunctionTool or null`. */
function typeText(schema) {
  if (refName(schema)) return refName(schema);
  if (schema.anyOf) return schema.anyOf.map(typeText).join(' or ');
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(', ');
  if (schema.type === 'array') return `list of ${schema.items ? typeText(schema.items) : 'anything'}`;
  const values = schema.additionalProperties;
  if (schema.type === 'object' && values?.type) return `map of ${typeText(values)}`;
  return schema.type ?? 'anything';
}

const CONSTRAINTS = {minimum: 'at least', maximum: 'at most', minItems: 'items: at least', maxItems: 'items: at most',
  pattern: 'pattern', format: 'format', contentEncoding: 'encoded as', default: 'default'};

/** The constraints of a value, such as `at least 1, default 1024`. */
function constraintText(schema) {
  const variants = [schema, ...(schema.anyOf ?? [])];
  return Object.entries(CONSTRAINTS)
    .flatMap(([key, label]) => variants.map((variant) => variant[key] ?? null).filter((value) => value !== null)
      .map((value) => `${label} ${typeof value === 'string' ? value : JSON.stringify(value)}`))
    .join(', ');
}

const describe = (description, schema) => [description, constraintText(schema)].filter(Boolean).join('; ');

/** The names of the schemas that a schema refers to. */
function referredNames(schema) {
  if (refName(schema)) return [refName(schema)];
  return [...(schema.anyOf ?? []), ...(schema.items ? [schema.items] : [])].flatMap(referredNames);
}

function table(headings, rows) {
  return element('table', {},
    element('thead', {}, element('tr', {}, ...headings.map((heading) => element('th', {}, heading)))),
    element('tbody', {}, ...rows.map((cells) => element('tr', {}, ...cells.map((cell) => element('td', {}, cell))))));
}

/** A collapsed schema, rendered when it is opened: schemas can refer to each other. `ancestors`: names around it. */
function schemaDetails(name, ancestors = []) {
  const schema = schemas[name];
  const box = element('details', {}, element('summary', {}, element('code', {}, name)));
  box.addEventListener('toggle', () => {
    if (box.children.length === 1) box.append(schemaBody(schema, [...ancestors, name]));
  });
  return box;
}

function schemaBody(schema, ancestors) {
  const fields = Object.entries(schema.properties ?? {});
  const required = new Set(schema.required ?? []);
  const rows = fields.map(([field, fieldSchema]) => [
    element('code', {}, field + (required.has(field) ? ' *' : '')), typeText(fieldSchema),
    element('span', {class: 'quiet'}, describe(fieldSchema.description, fieldSchema)),
  ]);
  const names = new Set([schema, ...fields.map(([, fieldSchema]) => fieldSchema)].flatMap(referredNames));
  return element('div', {class: 'inside'},
    schema.description ? paragraph(schema.description) : null,
    rows.length ? table(['field (* required)', 'type', ''], rows) : null,
    ...[...names].filter((name) => !ancestors.includes(name)).map((name) => schemaDetails(name, ancestors)));
}

/** The media types of a body, and its schemas. */
function bodyContent(mediaTypes) {
  const entries = Object.entries(mediaTypes ?? {});
  const names = [...new Set(entries.flatMap(([, {schema}]) => (schema ? referredNames(schema) : [])))];
  const types = element('code', {}, entries.map(([mediaType]) => mediaType).join(', '));
  return [element('p', {}, types), ...names.map((name) => schemaDetails(name))];
}

function operationDetails(method, path, operation) {
  const parameters = (operation.parameters ?? []).map((parameter) => [
    element('code', {}, parameter.name + (parameter.required ? ' *' : '')),
    `${parameter.in}: ${typeText(parameter.schema)}`,
    element('span', {class: 'quiet'}, describe(parameter.description, parameter.schema)),
  ]);
  const responses = Object.entries(operation.responses);
  const successes = responses.filter(([status]) => status < 400);
  const errors = responses.filter(([status]) => status >= 400);
  const searchText = JSON.stringify([path, operation]).toLowerCase();
  return element('details', {id: `${method}-${path}`, 'data-search-text': searchText},
    element('summary', {}, element('span', {class: `method ${method}`}, method), element('code', {}, path), ' ',
      element('span', {class: 'quiet'}, operation.summary)),
    element('div', {class: 'inside'},
      operation.description ? paragraph(operation.description) : null,
      parameters.length ? element('h3', {}, 'Parameters') : null,
      parameters.length ? table(['name (* required)', 'type', ''], parameters) : null,
      ...(operation.requestBody ? [element('h3', {}, 'Body'), ...bodyContent(operation.requestBody.content)] : []),
      ...successes.flatMap(([status, {description, content}]) =>
        [element('h3', {}, `${status} ${description}`), ...(content ? bodyContent(content) : [])]),
      element('h3', {}, 'Errors'),
      table(['status', ''], errors.map(([status, {description}]) => [element('code', {}, status), description])),
      ...bodyContent(errors[0]?.[1].content)));
}

function render() {
  const groups = new Map(openapi.tags.map(({name}) => [name, []]));
  for (const [path, methods] of Object.entries(openapi.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      groups.get(operation.tags[0]).push(operationDetails(method, path, operation));
    }
  }
  byId('about').textContent = openapi.info.description;
  byId('addresses').replaceChildren(...[...groups].map(([name, operations]) =>
    element('section', {id: name}, element('h2', {}, name), ...operations)),
  element('section', {id: 'Schemas'}, element('h2', {}, 'Schemas'), ...Object.keys(schemas).sort().map((name) => {
    const box = schemaDetails(name);
    box.dataset.searchText = JSON.stringify([name, schemas[name]]).toLowerCase();
    return box;
  })));
  byId('groups').append(...[...groups.keys(), 'Schemas'].map((name) =>
    element('a', {href: `#${encodeURIComponent(name)}`}, name)));
}

function filter() {
  const query = byId('find').value.trim().toLowerCase();
  for (const box of document.querySelectorAll('section > details')) {
    box.hidden = !box.dataset.searchText.includes(query);
  }
  for (const section of document.querySelectorAll('section')) {
    section.hidden = !section.querySelector(':scope > details:not([hidden])');
  }
}

render();
byId('find').addEventListener('input', filter);
