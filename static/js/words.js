// What a page says comes with its form, in the reader's language; the places in it are filled here.
"use strict";

const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
