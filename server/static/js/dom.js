// Elements without markup: what is shown becomes a text, an attribute or a listener, and never HTML.

const SVG = 'http://www.w3.org/2000/svg';

/**
 * An HTML element. `props`: `on` holds listeners, `data` the dataset, the rest are attributes
 * (true: present; false, null and undefined: absent). Children: nodes and texts; nested lists are laid flat, and what
 * is false, null or undefined is left out.
 */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (name === 'on') {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (name === 'data') {
      Object.assign(node.dataset, value);
    } else {
      setAttribute(node, name, value);
    }
  }
  node.append(...shownOf(children));
  return node;
}

export function replace(node, ...children) {
  node.replaceChildren(...shownOf(children));
}

const shownOf = (children) => children.flat(Infinity).filter((child) => child !== false && (child ?? null) !== null);

export function setAttribute(node, name, value) {
  if (value === false || value === null || value === undefined) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? '' : String(value));
}

/** Sets a text only where it differs, so that nothing is laid out again for nothing. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Brings the children of `parent` in line with `items`: elements are kept by key, so that focus, selection and scroll
 * outlive an update. `make(item)` returns {element, update(item)}; update may be left out where a row never changes.
 */
export class KeyedList {
  #parent;
  #key;
  #make;
  #rows = new Map();

  constructor(parent, key, make) {
    this.#parent = parent;
    this.#key = key;
    this.#make = make;
  }

  show(items) {
    const rows = new Map(items.map((item) => [this.#key(item), this.#rowOf(item)]));
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
    const row = this.#rows.get(this.#key(item)) ?? this.#make(item);
    row.update?.(item);
    return row;
  }
}
