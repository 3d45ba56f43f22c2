// A job: the same parts in the list and at the head of its own view

const LABELS = { pause: "Pause", resume: "Resume", cancel: "Cancel", delete: "Delete" };
const QUESTIONS = {
  cancel: ["Cancel", "It stops. Its whole shards stay, and it can be started again."],
  delete: ["Delete", "Its shards and its list of outcomes are removed from the disk. There is no way back."],
};

class JobParts {
  constructor(id) {
    this.id = id;
    this.name = make("a");
    this.name.href = `#/jobs/${id}`;
    this.name.dir = "auto";
    this.badge = styled("span", "badge");
    this.when = styled("span", "small quiet");
    this.why = styled("p", "why small");
    this.images = styled("i", "images");
    this.failures = styled("i", "failures");
    this.bar = styled("div", "bar", this.images, this.failures);
    attributes(this.bar, { role: "progressbar", "aria-valuemax": 100 });
    this.done = styled("span", "done");
    this.speed = styled("span", "speed quiet");
    this.failed = styled("span", "failed quiet");
    // The same two buttons whatever they do at the time, so that the focus stays on them.
    this.onward = button("", "plain", () => this.act(this.onward));
    this.away = button("", "plain", () => this.act(this.away));
    this.buttons = styled("div", "buttons", this.onward, this.away);
  }

  row() {
    this.item ??= styled(
      "li", "job",
      styled("div", "who", make("h3", this.name), styled("p", "", this.badge, " ", this.when), this.why),
      styled("div", "how", this.bar, styled("p", "small", this.done, this.speed, this.failed)),
      this.buttons,
    );
    this.item.dataset.state = this.job.state;
    return this.item;
  }

  update(job) {
    if (this.job === job) return this;
    this.job = job;
    set(this.name, job.name);
    set(this.badge, job.state);
    this.badge.dataset.state = job.state;
    const step = job.finished ? "finished" : job.started ? "started" : "created";
    set(this.when, `${step} ${moment(job[step]).textContent}`);
    set(this.why, job.why ?? "");
    this.why.hidden = !job.why;
    this.progress(job);
    const can = ended(job) ? "delete" : "cancel";
    const again = job.state === "done" ? "Retry failed" : "Start again";
    const onward = ended(job) ? "retry" : job.state === "paused" ? "resume" : "pause";
    this.label(this.onward, onward, onward === "retry" ? again : LABELS[onward]);
    this.onward.hidden = job.state === "done" && !failed(job);
    this.label(this.away, can, LABELS[can]);
    return this;
  }

  progress(job) {
    const failures = failed(job);
    const all = Math.max(1, job.rows);
    this.images.style.width = `${(100 * job.images) / all}%`;
    this.failures.style.width = `${(100 * failures) / all}%`;
    attributes(this.bar, { "aria-label": `progress of ${job.name}`, "aria-valuenow": Math.floor((100 * job.done) / all) });
    set(this.done, job.done === job.rows ? counted(job.rows, "row") : `${percent(job.done, job.rows)} of ${counted(job.rows, "row")}`);
    const pace = job.state === "running" ? `${compact(job.rate)}/s${job.eta === null ? "" : `, ${duration(job.eta)} left`}` : "";
    set(this.speed, pace);
    set(this.failed, job.done ? `${percent(failures, job.done)} failed` : "");
  }

  label(made, action, text) {
    made.dataset.action = action;
    set(made, text);
    made.setAttribute("aria-label", `${text}: ${this.job.name}`);
  }

  async act(made) {
    if (made.ariaBusy === "true") return;
    made.ariaBusy = "true";
    await act(this.job, made.dataset.action);
    made.ariaBusy = "false";
  }
}

async function act(job, action, json) {
  const question = QUESTIONS[action];
  if (question && !(await asked(`${question[0]} “${job.name}”?`, question[1], `${question[0]} the job`))) return;
  try {
    if (action === "delete") {
      await ask(`jobs/${job.id}`, { method: "DELETE" });
      announce(`${job.name}: deleted`);
      forget(job.id);
    } else {
      take(await ask(`jobs/${job.id}/${action}`, { method: "POST", json }));
    }
  } catch (error) {
    complain(job.name, error);
  }
}
