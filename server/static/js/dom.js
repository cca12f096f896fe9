// DOM elements without markup: values become text nodes, attributes or listeners, and never HTML.

const SVG_NAMESPACE = 'http://www.w3.org/2000/svg';

/**
 * An HTML element. `props`: `on` holds listeners, `data` the dataset, the rest are attributes
 * (true: present; false, null and undefined: absent). Children: nodes and texts; nested lists are flattened; false,
 * null and undefined are omitted.
 */
export function h(tag, props = {}, ...children) {
  return applyProps(document.createElement(tag), props, children);
}

/** An SVG element, with the arguments of `h`. */
export function svg(tag, props = {}, ...children) {
  return applyProps(document.createElementNS(SVG_NAMESPACE, tag), props, children);
}

function applyProps(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (name === 'on') {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (name === 'data') {
      Object.assign(node.dataset, value);
    } else {
      setAttribute(node, name, value);
    }
  }
  node.append(...flatten(children));
  return node;
}

export function replaceChildren(node, ...children) {
  node.replaceChildren(...flatten(children));
}

const flatten = (children) => children.flat(Infinity).filter((child) => child !== false && (child ?? null) !== null);

export function setAttribute(node, name, value) {
  if (value === false || value === null || value === undefined) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? '' : String(value));
}

/** Sets a text only where it differs: assigning an equal text would cause a layout too. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Reconciles the children of `parent` with `items`: elements are kept by key, so that focus, selection and scroll
 * position survive an update. `createRow(item)` returns {element, update(item)}; `update` is optional.
 */
export class KeyedList {
  #parent;
  #keyOf;
  #createRow;
  #rows = new Map();

  constructor(parent, keyOf, createRow) {
    this.#parent = parent;
    this.#keyOf = keyOf;
    this.#createRow = createRow;
  }

  render(items) {
    const rows = new Map(items.map((item) => [this.#keyOf(item), this.#rowOf(item)]));
    for (const [key, row] of this.#rows) {
      if (!rows.has(key)) row.element.remove();
    }
    this.#rows = rows;
    let next = this.#parent.firstElementChild;
    for (const { element } of rows.values()) {
      if (element === next) next = next.nextElementSibling;
      else this.#parent.insertBefore(element, next);
    }
  }

  #rowOf(item) {
    const row = this.#rows.get(this.#keyOf(item)) ?? this.#createRow(item);
    row.update?.(item);
    return row;
  }
}
