// The page: pictures go to /caption, then, when a word is chosen, to /explain. Nothing is kept
// but in this browser. An entry is a captioned picture; the words' `leaning` comes with /explain.

const KEY = "capstan.history.1";
const KEPT = 30; // entries
const THUMB = 480; // pixels, the longer side of what is kept of a picture
const LARGE = 2048; // pixels, the longer side of what is sent where the file itself is too large
const PATIENCE = 60_000; // ms for an answer
const TRIES = 4; // of a request that is refused for now
const READABLE = ["image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp"];
const FLOOR = 0.25; // nats: leaning below this is drawn faintly

const maxBytes = Number(document.body.dataset.maxBytes);
const canExplain = document.body.dataset.canExplain === "True";
const files = new Map(); // entry's id -> what was sent, in this visit

let history = load();
let current = null; // the entry shown
let chosen = -1; // the word shown
let work = Promise.resolve(); // pictures are captioned one after another

// Asking the server

async function ask(path, blob) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await askOnce(path, blob);
    } catch (error) {
      if (!(error instanceof Refusal) || !error.wait || attempt === TRIES) throw error;
      say(`The server is busy; asking again in ${error.wait} s.`);
      await new Promise((resolve) => setTimeout(resolve, 1000 * error.wait));
    }
  }
}

async function askOnce(path, blob) {
  const form = new FormData();
  form.append("picture", blob, "picture");
  let response;
  let answer;
  try {
    response = await fetch(path, { method: "POST", body: form, signal: AbortSignal.timeout(PATIENCE) });
    answer = await response.json();
  } catch (error) {
    if (error.name === "TimeoutError") throw new Refusal(`no answer within ${PATIENCE / 1000} s. Try again later.`);
    throw new Refusal("the server does not answer. It has stopped, or the connection is down; try again when it is back.");
  }
  if (response.ok) return answer;
  const asked = Number(response.headers.get("Retry-After"));
  throw new Refusal(told(response.status, answer), {
    reason: answer.reason,
    wait: [429, 503].includes(response.status) ? Math.min(Math.max(asked, 1), 10) : 0, // seconds
  });
}

function told(status, answer) {
  const reasons = {
    empty_body: "the file is empty.",
    not_an_image: "this is not a picture that the server reads: send JPEG, PNG, WebP, GIF or BMP.",
    corrupt_image: "the picture is damaged or cut short.",
    too_many_pixels: "the picture has too many pixels; make it smaller.",
    too_small: "the picture has too few pixels; send a larger one.",
  };
  const texts = {
    408: "it took too long to arrive; the connection may be slow. Try again, or send a smaller one.",
    413: `it is larger than the server takes (${size(maxBytes)}) and could not be made smaller here.`,
    415: "the server does not read pictures of this kind: send JPEG, PNG, WebP, GIF or BMP.",
    429: "the server has all the pictures that it can take. Try again in a little while.",
    503: "the server is too busy, or stopping. Try again in a little while.",
  };
  if (reasons[answer.reason]) return reasons[answer.reason];
  if (texts[status]) return texts[status];
  return status >= 500 ? "the server failed at it; its log tells why." : `the server refused it: ${answer.error}`;
}

const size = (bytes) => (bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${Math.round(bytes / 1e6)} MB`);

// Pictures

async function drawn(blob, longest) {
  const bitmap = await createImageBitmap(blob);
  const scale = Math.min(1, longest / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff"; // as the server does with what is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas;
}

async function shrunk(blob) {
  for (let longest = LARGE; longest >= 64; longest /= 2) {
    const canvas = await drawn(blob, longest).catch(() => null);
    if (!canvas) return blob; // the browser cannot read it either: the server says why
    const smaller = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
    if (smaller.size <= maxBytes - 1024) return smaller; // room for the form around it
  }
  return blob;
}

async function captioned(file) {
  const fits = file.size <= maxBytes - 1024 && READABLE.includes(file.type);
  const blob = fits ? file : await shrunk(file);
  try {
    return [blob, await ask("caption", blob)];
  } catch (error) {
    if (error.reason !== "too_many_pixels") throw error;
    const smaller = await shrunk(file);
    return [smaller, await ask("caption", smaller)];
  }
}

// New pictures

function add(list) {
  const pictures = [...list];
  if (!pictures.length) return;
  pictures.forEach((file, index) => {
    const many = pictures.length > 1 ? ` (${index + 1} of ${pictures.length})` : "";
    work = work.catch(() => {}).then(() => take(file, many));
  });
}

async function take(file, many) {
  say(`Looking at ${file.name || "the picture"}${many} …`);
  element("caption").classList.toggle("waiting", current !== null);
  try {
    const [blob, answer] = await captioned(file);
    if (!answer.caption) throw new Refusal("the model says nothing of it.");
    const small = await drawn(blob, THUMB).catch(() => {
      throw new Refusal(`the model says “${answer.caption}”, but this browser cannot show the picture.`);
    });
    const thumb = small.toDataURL("image/jpeg", 0.85);
    const entry = { id: crypto.randomUUID?.() ?? String(Math.random()), name: file.name, thumb, ...answer };
    files.set(entry.id, blob);
    history = [entry, ...history].slice(0, KEPT);
    save();
    show(entry);
    say(`${file.name || "The picture"}: ${entry.caption}`);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    say("");
    warn(file.name || "The picture", error.message, () => add([file]));
  } finally {
    element("caption").classList.remove("waiting");
  }
}

const say = (text) => { element("status").textContent = text; };

// The picture shown

function show(entry) {
  const old = element("picture").src;
  if (old.startsWith("blob:")) URL.revokeObjectURL(old);
  current = entry;
  element("view").hidden = !entry;
  list();
  if (!entry) return;
  const file = files.get(entry.id);
  element("picture").src = file ? URL.createObjectURL(file) : entry.thumb;
  element("picture").alt = entry.caption;
  element("model").textContent =
    `Model ${entry.model_sha256.slice(0, 12)}, seeing by ${entry.extractor?.name ?? "its extractor"}.`;
  element("how").textContent =
    `A longer bar is a surer word. The caption as a whole: ${chance(entry.log_probability)}; ` +
    `that it ends there: ${chance(entry.end_log_probability)}.` +
    (canExplain ? " Choose a word to see which part of the picture it leaned on." : "");
  element("caption").replaceChildren(...entry.words.map(word));
  element("others").replaceChildren(
    ...entry.alternatives.map((each) => {
      const score = make("small", chance(each.log_probability));
      score.title = `log-probability ${each.log_probability.toFixed(3)}`;
      return make("li", make("span", each.caption), score);
    }),
  );
  document.querySelector(".told h2").hidden = !entry.alternatives.length;
  choose(-1);
}

function word({ word, log_probability }, index) {
  const made = button(word, "word", () => choose(chosen === index ? -1 : index));
  made.style.setProperty("--p", Math.exp(log_probability));
  made.setAttribute("aria-label", `${word}, ${sure(log_probability)}`);
  made.tabIndex = index ? -1 : 0;
  const peek = () => describe(index);
  made.addEventListener("pointerenter", peek);
  made.addEventListener("focus", peek);
  made.addEventListener("pointerleave", () => describe(chosen));
  made.addEventListener("blur", () => describe(chosen));
  return made;
}

const sure = (logProbability) => chance(logProbability) + (Math.exp(logProbability) < 0.001 ? "" : " sure");

function chance(logProbability) {
  const share = Math.exp(logProbability);
  if (share >= 0.9995) return "almost 100 %";
  if (share >= 0.001) return `${(100 * share).toPrecision(share < 0.1 ? 2 : 3)} %`;
  return share > 1e-12 ? `1 in ${Number((1 / share).toPrecision(2)).toLocaleString("en")}` : "next to never";
}

function choose(index) {
  chosen = index;
  [...element("caption").children].forEach((each, place) => {
    each.setAttribute("aria-pressed", place === index);
    each.tabIndex = place === Math.max(index, 0) ? 0 : -1;
  });
  describe(index);
  draw();
  if (index >= 0 && canExplain && !current.words[index].leaning) explain(current);
}

function describe(index) {
  const detail = element("detail");
  if (index < 0) return detail.replaceChildren();
  const { word, log_probability, leaning } = current.words[index];
  const text = [make("b", `“${word}”`), `, ${sure(log_probability)}. `];
  if (leaning) text.push(where(leaning));
  else if (canExplain && index === chosen) text.push("Covering the picture part by part to see what it leaned on …");
  return detail.replaceChildren(...text);
}

function where(leaning) {
  const side = leaning.length;
  const flat = leaning.flat();
  const most = Math.max(...flat);
  if (most < 0.01) return "No single part of the picture mattered for it.";
  const at = flat.indexOf(most);
  const third = (place) => Math.min(2, Math.floor((3 * (place + 0.5)) / side));
  const row = ["upper ", "", "lower "][third(Math.floor(at / side))];
  const column = ["left", "middle", "right"][third(at % side)];
  return `It leaned most on the ${row}${column}: with that covered it is ${Math.exp(most).toPrecision(2)} times less likely.`;
}

// What words leaned on

const explaining = new Map(); // entry's id -> promise, while it is on its way

function explain(entry) {
  if (explaining.has(entry.id)) return;
  explaining.set(entry.id, fetchLeaning(entry).finally(() => explaining.delete(entry.id)));
}

async function fetchLeaning(entry) {
  try {
    const kept = files.get(entry.id) ?? (await (await fetch(entry.thumb)).blob());
    const answer = await ask("explain", kept);
    if (answer.caption !== entry.caption)
      throw new Refusal("of the small copy that is kept the model says something else; add the picture again.");
    Object.assign(entry, { words: answer.words, window: answer.window });
    save();
    say("");
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    say("");
    if (entry === current) choose(-1);
    warn("What its words leaned on", error.message, () => explain(entry));
    return;
  }
  if (entry === current) {
    describe(chosen);
    draw();
  }
}

function draw() {
  const leaning = current?.words[chosen]?.leaning;
  const heat = element("heat");
  heat.hidden = element("legend").hidden = !leaning;
  element("frame").classList.toggle("leaning", Boolean(leaning));
  element("seen").textContent = "";
  if (!leaning) return;
  const { left, top, width, height } = current.window;
  Object.entries({ left, top, width, height }).forEach(([name, share]) => { heat.style[name] = `${100 * share}%`; });
  const cut = width < 0.999 || height < 0.999;
  element("frame").classList.toggle("cut", cut);
  if (cut) element("seen").textContent = "The model sees what is inside the dashed line.";
  paint(heat, leaning);
}

function paint(canvas, leaning) {
  const style = getComputedStyle(document.documentElement);
  const colours = ["--for", "--against"].map((name) => style.getPropertyValue(name).trim().split(" ").map(Number));
  const flat = leaning.flat();
  const scale = Math.max(FLOOR, ...flat.map(Math.abs));
  canvas.width = canvas.height = leaning.length;
  const cells = flat.flatMap((value) => [...colours[value < 0 ? 1 : 0], Math.round((200 * Math.abs(value)) / scale)]);
  canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(cells), leaning.length), 0, 0);
}

// History, in this browser

function load() {
  try {
    const entries = JSON.parse(localStorage.getItem(KEY)) ?? [];
    return entries.filter((entry) => entry.id && entry.thumb && entry.words);
  } catch {
    return []; // none, not readable, or storage is not allowed
  }
}

function save() {
  for (let count = history.length; count >= 0; count--) {
    try {
      localStorage.setItem(KEY, JSON.stringify(history.slice(0, count)));
      return;
    } catch {
      // full: keep fewer; not allowed: keep them for this visit
    }
  }
}

function list() {
  element("past").hidden = !history.length;
  element("history").replaceChildren(
    ...history.map((entry) => {
      const picture = make("img");
      picture.src = entry.thumb;
      picture.alt = "";
      const card = button("", "card", () => { show(entry); element("view").scrollIntoView({ block: "nearest" }); });
      card.append(picture, make("span", entry.caption));
      card.setAttribute("aria-current", entry === current);
      return make("li", card);
    }),
  );
}

// What people do

element("photo").hidden = !navigator.maxTouchPoints;
element("picture").addEventListener("load", ({ target }) => {
  element("frame").style.setProperty("--aspect", target.naturalWidth / target.naturalHeight);
});

for (const id of ["files", "camera"])
  element(id).addEventListener("change", (event) => { add(event.target.files); event.target.value = ""; });

element("clear").addEventListener("click", () => {
  history = [];
  files.clear();
  save();
  show(null);
  say("All cleared.");
  element("files").focus();
});

element("caption").addEventListener("keydown", (event) => {
  const words = [...element("caption").children];
  const at = words.indexOf(document.activeElement);
  const last = words.length - 1;
  const to = {
    ArrowRight: Math.min(at + 1, last), ArrowDown: Math.min(at + 1, last),
    ArrowLeft: Math.max(at - 1, 0), ArrowUp: Math.max(at - 1, 0), Home: 0, End: last,
  }[event.key];
  if (event.key === "Escape") choose(-1);
  if (to === undefined || at < 0) return;
  event.preventDefault();
  choose(to);
  words[to].focus();
});

document.addEventListener("paste", (event) => add(event.clipboardData.files));
onDrop(add);

show(history[0] ?? null);
