// The view of one job

class JobView {
  constructor(id) {
    this.id = id;
    this.reason = "";
    this.parts = new JobParts(id);
    this.failures = new Pager(element("failures"), "failures", {
      path: (after) => this.path("outcomes", { status: "failed", limit: PAGE, reason: this.reason, after }),
      key: "outcomes",
      row: outcomeItem,
      none: "None in whole shards yet.",
    });
    this.shards = new Pager(element("shards"), "shards", {
      path: (after) => this.path("shards", { limit: PAGE, after }),
      key: "shards",
      row: shardItem,
      none: "None is whole yet.",
    });
    element("job-reasons").replaceChildren();
    element("job-reasons").dataset.kind = "";
    element("pictures").replaceChildren();
    const heading = styled("h1", "", this.parts.name);
    heading.tabIndex = -1;
    this.parts.name.removeAttribute("href");
    const first = styled("div", "head", heading, this.parts.buttons);
    const second = styled("p", "", this.parts.badge, " ", this.parts.when);
    const third = styled("p", "numbers", this.parts.done, this.parts.speed, this.parts.failed);
    element("job-head").replaceChildren(first, second, this.parts.why, this.parts.bar, third);
    element("job-body").hidden = true;
  }

  path(what, query = {}) {
    const wanted = Object.entries(query).filter(([, value]) => value !== "");
    return `jobs/${this.id}${what && `/${what}?${new URLSearchParams(wanted)}`}`;
  }

  // Ask for all of it: when it is opened, and when the link is back.
  async refresh() {
    try {
      const job = await ask(this.path(""));
      if (!told.has(job.id) || !jobs.has(job.id)) jobs.set(job.id, job);
    } catch (error) {
      if (error.status !== 404 || view !== this) throw error;
      jobs.delete(this.id);
      element("job-body").hidden = true;
      element("job-head").replaceChildren(styled("p", "absent", "There is no such job: it was deleted, or never was."));
      return;
    }
    if (view !== this) return;
    element("job-body").hidden = false;
    draw();
    await this.follow();
  }

  // Called with what the job was before: the lists follow its whole shards.
  changed(before) {
    const job = jobs.get(this.id);
    if (before?.shards === job.shards && before.state === job.state) return;
    this.following ??= setTimeout(() => {
      this.following = null;
      if (view === this) this.follow();
    }, FOLLOW);
  }

  follow() {
    const job = jobs.get(this.id);
    if (!job) return null; // deleted meanwhile
    element("failures").hidden = !failed(job);
    return Promise.all([this.shards.follow(), this.gallery(), failed(job) ? this.failures.follow() : null]);
  }

  choose(reason) {
    this.reason = this.reason === reason ? "" : reason;
    element("failures").hidden = false;
    this.failures.reset();
    draw();
  }

  async gallery() {
    let pictures;
    try {
      ({ pictures } = await ask(this.path("pictures", { limit: GALLERY })));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      set(element("no-pictures"), `Not to be had: ${error.message}`);
      element("no-pictures").hidden = false;
      return;
    }
    if (view !== this || !jobs.has(this.id)) return;
    const old = new Map([...element("pictures").children].map((child) => [child.dataset.key, child]));
    arrange(element("pictures"), pictures.map((picture) => old.get(picture.key) ?? pictureItem(picture)));
    set(element("no-pictures"), ended(jobs.get(this.id)) ? "It has none." : "They come with the first whole shard.");
    element("no-pictures").hidden = pictures.length > 0;
  }

  draw() {
    const job = jobs.get(this.id);
    if (!job) return;
    this.parts.update(job);
    figures(element("facts"), [
      ["Pictures", whole(job.images)],
      ["Failures", whole(failed(job))],
      ["Fetched", size(job.bytes)],
      ["Whole shards", `${whole(job.shards)} of ${whole(job.chunks)}`],
      ["Delivered", job.delivered === null ? null : counted(job.delivered, "shard")],
      ["Submitted", moment(job.created)],
      ["Started", job.started && moment(job.started)],
      ["Ended", job.finished && moment(job.finished)],
    ]);
    const chosen = Object.entries(job.options).map(([name, value]) => [plain(name), String(value)]);
    element("job-options").hidden = !chosen.length;
    figures(element("chosen-options"), chosen);
    drawReasons(element("job-reasons"), job.failures, job.done ? "None so far." : "Nothing has been tried yet.");
    for (const item of element("job-reasons").children)
      item.firstElementChild?.setAttribute("aria-pressed", item.dataset.reason === this.reason);
    const again = element("retry-reason");
    again.hidden = !this.reason || !ended(job);
    set(again, `Retry ${plain(this.reason)}`);
    const outcomes = element("outcomes");
    outcomes.hidden = !job.shards;
    outcomes.href = `api/${this.path("")}/outcomes.parquet`;
  }
}

function outcomeItem({ key, url, caption, reason, http_status: status, attempts, final_url: final }) {
  const facts = [plain(reason), status && `HTTP ${status}`, counted(attempts, "attempt")].filter(Boolean);
  const item = make("li", foreign("caption", caption || "(no caption)"), styled("p", "small why-not", ...facts.map((text) => make("span", text))), address(url));
  if (final && final !== url) item.append(styled("p", "small quiet", "ended at ", address(final)));
  item.title = key;
  return item;
}

function shardItem({ chunk, rows: lines, images, failures, files }) {
  const counts = `${counted(lines, "row")}, ${counted(images, "picture")}, ${counted(sum(Object.values(failures)), "failure")}`;
  const links = files.map(({ name, bytes, sha256, url }) => {
    const kind = name.slice(name.lastIndexOf("/") + 1).replace(chunk.slice(chunk.lastIndexOf("/") + 1), "");
    const link = make("a", kind.slice(1), make("small", ` ${size(bytes)}`)); // tar, parquet, stats.json
    Object.assign(link, { href: url, download: "", title: sha256 ? `sha256 ${sha256}` : "" });
    link.setAttribute("aria-label", `${name}, ${size(bytes)}`);
    return link;
  });
  return make("li", make("b", chunk), styled("span", "small quiet", counts), styled("span", "links small", ...links));
}

function pictureItem({ key, caption, url }) {
  const image = make("img");
  Object.assign(image, { src: url, alt: "", loading: "lazy", decoding: "async" });
  const link = make("a", image, foreign("caption", caption || "(no caption)"));
  Object.assign(link, { href: url, target: "_blank" });
  link.className = "card";
  const item = make("li", link);
  item.dataset.key = key;
  return item;
}
