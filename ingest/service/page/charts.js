// Charts

// Means over STEP seconds, oldest first; the present step is left out until it is whole.
function bins() {
  const last = Math.floor(Math.max(...seconds.keys(), 0) / STEP);
  const points = Array.from({ length: HISTORY / STEP }, (_, place) => ({
    t: (last - HISTORY / STEP + place) * STEP, images: 0, failures: 0, bytes: 0,
  }));
  for (const { t, images, failures, bytes } of seconds.values()) {
    const point = points[Math.floor(t / STEP) - last + HISTORY / STEP];
    if (!point) continue;
    point.images += images / STEP;
    point.failures += failures / STEP;
    point.bytes += bytes / STEP;
  }
  return points;
}

class Chart {
  // Areas on top of each other; `keys` from below, `say` puts a point into words.
  constructor(root, name, keys, { say, label, least }) {
    Object.assign(this, { keys, say, label, least, points: [], at: -1 });
    this.readout = styled("span", "quiet");
    this.areas = keys.map((key) => svg("path", { class: `area ${key}` }));
    this.edges = keys.map((key) => svg("path", { class: `edge ${key}` }));
    const drawing = svg("svg", { viewBox: "0 0 1000 1000", preserveAspectRatio: "none", "aria-hidden": "true" }, ...this.areas, ...this.edges);
    this.ticks = [styled("span", "tick top"), styled("span", "tick half"), styled("span", "tick foot")];
    this.cursor = styled("i", "cursor");
    this.plot = styled("div", "plot", drawing, this.cursor);
    attributes(this.plot, { role: "slider", tabindex: 0, "aria-label": `${name} over the last ten minutes`, "aria-valuemin": 0 });
    const times = styled("div", "times small quiet", make("span", "10 min ago"), make("span", "5"), make("span", "now"));
    root.append(make("figcaption", make("b", name), " ", this.readout), styled("div", "ticks", ...this.ticks), this.plot, times);
    this.plot.addEventListener("pointermove", (event) => {
      const box = this.plot.getBoundingClientRect();
      this.look(Math.floor(((event.clientX - box.left) / box.width) * this.points.length));
    });
    for (const kind of ["pointerleave", "blur"]) this.plot.addEventListener(kind, () => this.leave());
    this.plot.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const last = this.points.length - 1;
    const at = this.at < 0 ? last : this.at;
    const to = {
      ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1,
      PageDown: at - 12, PageUp: at + 12, Home: 0, End: last,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.look(to);
  }

  look(at) {
    this.at = Math.min(Math.max(at, 0), this.points.length - 1);
    this.tell();
  }

  leave() {
    this.at = -1; // follows the newest
    this.tell();
  }

  tell() {
    const place = this.at < 0 ? this.points.length - 1 : this.at;
    const point = this.points[place];
    const when = this.at < 0 ? "now" : new Date(1000 * point.t).toLocaleTimeString("en", { timeStyle: "medium" });
    const text = `${when}: ${this.say(point)}`;
    set(this.readout, text);
    this.cursor.hidden = this.at < 0;
    this.cursor.style.left = `${(100 * (place + 0.5)) / this.points.length}%`;
    attributes(this.plot, { "aria-valuemax": this.points.length - 1, "aria-valuenow": place, "aria-valuetext": text });
  }

  draw(points) {
    this.points = points;
    const most = round(Math.max(this.least, ...points.map((point) => sum(this.keys.map((key) => point[key])))));
    const last = points.length - 1;
    let below = points.map(() => 0);
    this.keys.forEach((key, place) => {
      const above = points.map((point, at) => below[at] + point[key]);
      const line = (values) => values.map((value, at) => `${((1000 * at) / last).toFixed(1)},${(1000 - (1000 * value) / most).toFixed(1)}`);
      this.edges[place].setAttribute("d", `M${line(above).join("L")}`);
      this.areas[place].setAttribute("d", `M${line(above).join("L")}L${line(below).reverse().join("L")}Z`);
      below = above;
    });
    this.ticks.forEach((tick, place) => set(tick, this.label((most * (2 - place)) / 2)));
    this.tell();
  }
}

// The next 1, 2 or 5 with zeros.
function round(value) {
  const power = 10 ** Math.floor(Math.log10(value || 1));
  return power * [1, 2, 5, 10].find((step) => step * power >= value);
}

function svg(name, values, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  attributes(made, values);
  made.append(...children);
  return made;
}

const charts = {
  rows: new Chart(element("rows-chart"), "Rows a second", ["images", "failures"], {
    say: ({ images, failures }) => `${compact(images)} pictures, ${compact(failures)} failures`,
    label: compact,
    least: 10,
  }),
  bytes: new Chart(element("bytes-chart"), "Bandwidth", ["bytes"], {
    say: ({ bytes }) => `${size(bytes)}/s`,
    label: (value) => size(value).replace(".0 ", " "),
    least: 1000,
  }),
};
