// What it tells

function note(news) {
  heard = Date.now();
  statistics = { ...statistics, ...news };
  news.seconds.forEach((second) => seconds.set(second.t, second));
  const oldest = Math.max(...seconds.keys()) - HISTORY;
  [...seconds.keys()].filter((t) => t <= oldest).forEach((t) => seconds.delete(t));
  draw();
}

function take(job) {
  heard = Date.now();
  const before = jobs.get(job.id);
  jobs.set(job.id, job);
  if (before && before.state !== job.state) announce(`${job.name}: ${stateText(job)}`);
  if (view?.id === job.id) view.changed(before);
  draw();
}

function stateText(job) {
  if (job.state !== "done") return job.why ? `${job.state}, ${job.why}` : job.state;
  return `done, ${counted(job.images, "picture")}, ${counted(failed(job), "failure")}`;
}

function forget(id) {
  if (rows.get(id)?.item?.contains(document.activeElement)) element("overview").querySelector("h1").focus({ preventScroll: true });
  jobs.delete(id);
  rows.delete(id);
  if (view?.id === id) location.hash = "#/";
  draw();
}

async function list(after = "") {
  const state = element("state").value;
  const filters = !state && !after ? ["running", "paused", ""] : [state]; // those at work, however old
  const answers = await Promise.all(
    filters.map((each) => ask(`jobs?${new URLSearchParams({ limit: SHOWN, ...(each && { state: each }), ...(after && { after }) })}`)),
  );
  if (!after) [...jobs.keys()].filter((id) => !told.has(id) && id !== view?.id).forEach((id) => jobs.delete(id));
  answers.flatMap((each) => each.jobs).filter((job) => !told.has(job.id)).forEach((job) => jobs.set(job.id, job));
  next = answers.at(-1).next;
  draw();
}

// Drawing, at most once a frame

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    if (view) view.draw();
    else drawOverview();
    title();
  });
}

function title() {
  const job = view && jobs.get(view.id);
  const running = [...jobs.values()].filter((each) => each.state === "running").length;
  const about = job ? `${ended(job) ? job.state : percent(job.done, job.rows)} · ${job.name} · ` : running ? `(${running}) ` : "";
  document.title = `${about}Capstan · ingest`;
}

function drawOverview() {
  if (!statistics) return;
  drawFigures();
  const points = bins();
  charts.rows.draw(points);
  charts.bytes.draw(points);
  drawJobs();
  drawReasons(element("reasons"), statistics.reasons, "No failures so far.");
  set(element("since"), statistics.since ? `since ${moment(statistics.since).textContent}` : "");
  drawHosts();
}

function drawFigures() {
  const newest = Math.max(...seconds.keys());
  const recent = [...seconds.values()].filter(({ t }) => t > newest - RECENT);
  const mean = (key) => sum(recent.map((second) => second[key])) / RECENT;
  figures(element("figures"), [
    ["Rows/s", compact(mean("rows"))],
    ["Pictures/s", compact(mean("images"))],
    ["Failing", percent(mean("failures"), mean("rows"))],
    ["Bandwidth", `${size(mean("bytes"))}/s`],
    ["In flight", compact(statistics.in_flight)],
    ["Rows waiting", compact(statistics.queued_rows)],
    ["Disk free", size(statistics.disk_free)],
    ["Processes", whole(statistics.processes)],
  ]);
}

function drawJobs() {
  const state = element("state").value;
  const rank = { running: 0, paused: 0, queued: 1 };
  const all = [...jobs.values()].filter((job) => !state || job.state === state);
  const order = (job) => rank[job.state] ?? 2;
  all.sort((a, b) => order(a) - order(b) || (a.id < b.id ? 1 : -1));
  const wanted = all.slice(0, shown).map((job) => {
    if (!rows.has(job.id)) rows.set(job.id, new JobParts(job.id));
    return rows.get(job.id).update(job).row();
  });
  arrange(element("jobs"), wanted);
  element("no-jobs").hidden = all.length > 0 || Boolean(state);
  element("no-such-jobs").hidden = all.length > 0 || !state;
  element("older").hidden = all.length <= shown && !next;
}

function drawReasons(list, reasons, none) {
  const pairs = Object.entries(reasons).filter(([, number]) => number).sort(([, a], [, b]) => b - a);
  const all = sum(pairs.map(([, number]) => number));
  if (list.dataset.kind !== (pairs.length ? "some" : "none")) list.replaceChildren();
  list.dataset.kind = pairs.length ? "some" : "none";
  if (!pairs.length && !list.children.length) list.append(styled("li", "absent", none));
  if (!pairs.length) return;
  const old = new Map([...list.children].map((child) => [child.dataset.reason, child]));
  arrange(list, pairs.map(([reason, number]) => {
    const item = old.get(reason) ?? reasonItem(list, reason);
    item.style.setProperty("--share", number / pairs[0][1]);
    set(item.querySelector(".number"), `${whole(number)} · ${percent(number, all)}`);
    return item;
  }));
}

// In a job's view a reason is a button that chooses the failures shown.
function reasonItem(list, reason) {
  const text = [make("span", plain(reason)), styled("span", "number")];
  const inside = list.id === "job-reasons" ? button("", "reason", () => view.choose(reason)) : styled("span", "reason");
  inside.append(...text);
  const item = make("li", inside);
  item.dataset.reason = reason;
  return item;
}

function drawHosts() {
  const { hosts } = statistics;
  const few = allHosts ? hosts : hosts.slice(0, FEW_HOSTS);
  element("no-hosts").hidden = hosts.length > 0;
  element("hosts-table").hidden = !hosts.length;
  element("more-hosts").hidden = hosts.length <= FEW_HOSTS;
  set(element("more-hosts"), allHosts ? `Only ${FEW_HOSTS}` : `All ${hosts.length}`);
  const body = element("hosts");
  while (body.children.length > few.length) body.lastChild.remove();
  while (body.children.length < few.length) body.append(make("tr", make("th"), make("td"), make("td"), make("td")));
  few.forEach(({ host, rows: asked, failures, top_reason }, place) => {
    const [name, ...cells] = body.children[place].children;
    name.scope = "row";
    name.dir = "auto";
    [host, compact(asked), percent(failures, asked), top_reason ? plain(top_reason) : ""].forEach((text, at) => set([name, ...cells][at], text));
    cells[1].classList.toggle("bad", failures > asked / 2);
  });
}
