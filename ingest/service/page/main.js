// Where people are

function route() {
  if (!element("login").hidden || !element("loading").hidden) return;
  const wanted = location.hash.match(/^#\/jobs\/([0-9a-z-]+)$/)?.[1] ?? null;
  const moved = wanted !== (view?.id ?? null);
  element("overview").hidden = wanted !== null;
  element("job").hidden = wanted === null;
  if (!moved) return;
  view = wanted === null ? null : new JobView(wanted);
  view?.refresh().catch((error) => complain("This job", error));
  draw();
  (view ? element("job-head") : element("overview")).querySelector("h1").focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

// What people do

element("login").addEventListener("submit", signIn);
element("leave").addEventListener("click", signOut);
for (const id of ["new", "first"]) element(id).addEventListener("click", () => openSubmit());
element("file").addEventListener("change", (event) => {
  if (event.target.files[0]) choose(event.target.files[0]);
  event.target.value = ""; // so that the same file can be chosen again
});
element("unchoose").addEventListener("click", () => { choose(null); element("file").focus(); });
element("rows").addEventListener("input", countRows);
element("submit-form").addEventListener("input", () => { key = ""; });
element("submit-form").addEventListener("submit", submit);
element("options").addEventListener("invalid", () => { element("options").open = true; }, true);
element("close").addEventListener("click", () => (sending ? stopSending() : element("submit").close()));
element("submit").addEventListener("close", stopSending);
element("yes").addEventListener("click", () => element("question").close("yes"));
element("no").addEventListener("click", () => element("question").close());
element("more-hosts").addEventListener("click", () => { allHosts = !allHosts; draw(); });
element("retry-reason").addEventListener("click", () => act(jobs.get(view.id), "retry", { reasons: [view.reason] }));
element("state").addEventListener("change", () => {
  shown = SHOWN;
  list().catch((error) => complain("The jobs", error));
});
element("older").addEventListener("click", async () => {
  try {
    if (jobs.size <= shown + SHOWN && next) await list(next);
    shown += SHOWN;
    draw();
  } catch (error) {
    complain("Older jobs", error);
  }
});

onDrop(([dropped]) => { if (dropped) openSubmit(dropped); });

window.addEventListener("hashchange", route);
window.addEventListener("online", () => { if (!source && element("login").hidden) begin(); });
setInterval(() => { if (source && Date.now() - heard > SILENCE) lost("it has been silent for a while."); }, 1000);

element("rows").placeholder = "a dog on a beach\thttps://example.org/dog.jpg";
choose(null);
begin();
