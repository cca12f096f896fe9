// The media input of a prompt: pick, drop or paste pictures or one video, with thumbnails.

import { announce } from '../announcer.js';
import { h, KeyedList, setText } from '../dom.js';
import { formatBytes } from '../format.js';
import { icon } from '../icons.js';
import { iconButton } from '../ui.js';

const PICTURE_TYPES = ['image/png', 'image/jpeg', 'image/gif', 'image/webp'];
const ACCEPTED_TYPES = [...PICTURE_TYPES, 'video/*'].join();

/** The pictures or the video of the next request. `zone`: the element that takes drops and pastes. */
export class MediaInput {
  #items = []; // {file, url}
  #strip = h('ul', { class: 'media-strip', 'aria-label': 'Pictures and video' });
  #problem = h('p', { class: 'problem', role: 'alert' });
  #input = h('input', {
    type: 'file',
    id: 'media-input',
    class: 'visually-hidden',
    multiple: true,
    accept: ACCEPTED_TYPES,
  });
  #list = new KeyedList(this.#strip, (item) => item.url, (item) => this.#createRow(item));

  constructor(zone) {
    this.#strip.hidden = true;
    this.element = h('div', { class: 'stack tight' }, this.#strip, this.#problem);
    const label = h('span', {}, 'Picture or video');
    this.picker = h('span', { class: 'picker' }, this.#input,
      h('label', { for: 'media-input', class: 'button quiet' }, icon('image'), label));
    this.#input.addEventListener('change', () => {
      this.add([...this.#input.files]);
      this.#input.value = '';
    });
    zone.addEventListener('paste', (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (files.length > 0) {
        event.preventDefault();
        this.add(files);
      }
    });
    this.#acceptDrops(zone);
  }

  get isEmpty() {
    return this.#items.length === 0;
  }

  /** The fields of a request: `frames` as data URIs, `mediaType`, and the names of the files. */
  async read() {
    const files = this.#items.map((item) => item.file);
    return {
      frames: await Promise.all(files.map(readDataUri)),
      mediaType: files.some(isVideo) ? 'video' : 'image',
      names: files.map((file) => file.name),
    };
  }

  add(files) {
    const rejected = files.filter((file) => !isVideo(file) && !PICTURE_TYPES.includes(file.type));
    const accepted = files.filter((file) => !rejected.includes(file));
    const all = [...this.#items.map((item) => item.file), ...accepted];
    if (rejected.length > 0) {
      this.#showProblem(`${rejected[0].name || 'That'} is no PNG, JPEG, GIF, WebP or video.`);
    } else if (all.some(isVideo) && all.length > 1) {
      this.#showProblem('One video, or pictures: not both, and not two videos.');
    } else {
      this.#append(accepted);
    }
  }

  #append(files) {
    this.#items.push(...files.map((file) => ({ file, url: URL.createObjectURL(file) })));
    this.#render();
    announce(`${files.map((file) => file.name).join(', ')} added.`);
  }

  #showProblem(message) {
    setText(this.#problem, message);
  }

  #render() {
    this.#showProblem('');
    this.#strip.hidden = this.isEmpty;
    this.#list.render(this.#items);
  }

  #createRow(item) {
    const { file, url } = item;
    const picture = isVideo(file)
      ? h('span', { class: 'thumb film' }, icon('film'))
      : h('img', { class: 'thumb', src: url, alt: '' });
    const name = h('span', { class: 'media-name' },
      h('span', { class: 'clip' }, file.name), h('span', { class: 'dim' }, formatBytes(file.size)));
    const remove = iconButton(`Remove ${file.name}`, 'close', () => {
      URL.revokeObjectURL(url);
      this.#items = this.#items.filter((other) => other !== item);
      this.#render();
      this.#input.focus();
    });
    return { element: h('li', {}, picture, name, remove) };
  }

  #acceptDrops(zone) {
    zone.addEventListener('dragover', (event) => {
      event.preventDefault();
      zone.classList.add('dropping');
    });
    zone.addEventListener('dragleave', (event) => {
      if (!zone.contains(event.relatedTarget)) zone.classList.remove('dropping');
    });
    zone.addEventListener('drop', (event) => {
      event.preventDefault();
      zone.classList.remove('dropping');
      this.add([...event.dataTransfer.files]);
    });
  }
}

const isVideo = (file) => file.type.startsWith('video/');

function readDataUri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(`${file.name} can't be read.`));
    reader.readAsDataURL(file);
  });
}
