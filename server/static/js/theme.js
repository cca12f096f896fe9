// Light and dark: the system's choice, until somebody makes one. Loaded first, so that nothing flashes.

import { replace, setAttribute } from './dom.js';
import { icon } from './icons.js';

const KEPT_AS = 'forgeline.theme';
const CHOICES = ['system', 'light', 'dark'];
const ICONS = { system: 'system', light: 'sun', dark: 'moon' };

const next = (choice) => CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];

let choice = CHOICES.includes(localStorage.getItem(KEPT_AS)) ? localStorage.getItem(KEPT_AS) : 'system';
const button = document.getElementById('theme');

function show() {
  setAttribute(document.documentElement, 'data-theme', choice === 'system' ? null : choice);
  const says = `Theme: ${choice}. Switch to ${next(choice)}.`;
  setAttribute(button, 'aria-label', says);
  setAttribute(button, 'title', says);
  replace(button, icon(ICONS[choice]));
}

button.addEventListener('click', () => {
  choice = next(choice);
  localStorage.setItem(KEPT_AS, choice);
  show();
});
show();
