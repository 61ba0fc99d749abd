// What every module needs of preact, htm and their hooks.
import { Fragment, h, render } from './vendor/preact.js';
import htm from './vendor/htm.js';

export { Fragment, h, render };
export {
  useCallback, useEffect, useLayoutEffect, useMemo, useReducer, useRef, useState,
} from './vendor/hooks.js';
export const html = htm.bind(h);
