// The API key: asked for when the server wants one, kept for this tab only, and never part of an address.

import { h, setText } from './dom.js';
import { statusOfKey } from './probe.js';
import { openDialog } from './ui.js';

const KEPT_AS = 'forgeline.key';

let asking = null;

export const currentKey = () => sessionStorage.getItem(KEPT_AS) ?? '';

/** The header that carries the key; none without one. */
export const keyHeaders = () => (currentKey() ? { Authorization: `Bearer ${currentKey()}` } : {});

/** The subprotocols to offer to a WebSocket: a browser can't set its headers, so the key comes along here. */
export function keyProtocols() {
  return currentKey() ? [`forgeline.key.${base64url(currentKey())}`] : [];
}

/**
 * Asks for a key until one is let in. `refused` is the one that was not: where there is another by now, nobody is
 * asked. Resolves to whether there is one; several who ask share one dialog.
 */
export async function askForKey(refused) {
  if (currentKey() !== refused) return true;
  asking ??= ask().finally(() => {
    asking = null;
  });
  return asking;
}

function ask() {
  return new Promise((resolve) => {
    const input = h('input', { type: 'password', id: 'key', autocomplete: 'off', required: true, spellcheck: 'false' });
    const problem = h('p', { class: 'problem', role: 'alert' });
    if (currentKey()) setText(problem, 'The key of this tab is not let in any more.');
    let accepted = false;
    const enter = async (event) => {
      event.preventDefault();
      setText(problem, '');
      const key = input.value.trim();
      const status = await statusOfKey(key);
      if (status === 401) setText(problem, 'This key is not let in.');
      else if (status === 0) setText(problem, 'The server can\'t be reached.');
      else {
        sessionStorage.setItem(KEPT_AS, key);
        accepted = true;
        dialog.close();
      }
      input.select();
    };
    const form = h('form', { id: 'key-form', class: 'stack', on: { submit: enter } },
      h('p', {}, 'This server lets in who has a key. It is kept for this tab, and forgotten with it.'),
      h('label', { for: 'key' }, 'Key'), input, problem);
    const dialog = openDialog('API key', {
      body: form,
      actions: [h('button', { type: 'submit', form: 'key-form', class: 'primary' }, h('span', {}, 'Enter'))],
      onClose: () => resolve(accepted),
    });
    input.focus();
  });
}

function base64url(text) {
  const binary = Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join('');
  return btoa(binary).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}
