import { word } from "./word.js";

const title = document.querySelector("#title");
const more = document.querySelector("#more");
title.textContent = word;
more.onclick = () => (more.textContent = Number(more.textContent) + 1);
import.meta.hot.accept("./word.js", (fresh) => (title.textContent = fresh.word));
