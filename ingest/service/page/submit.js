// A new job

let file = null; // chosen or dropped; without one, the pasted rows are sent
let sending = null; // the XMLHttpRequest: fetch does not tell how much it has sent
let key = ""; // sent again after trouble, so that the job is not there twice

function openSubmit(chosen = null) {
  if (element("new").hidden || sending) return;
  if (!element("submit").open) {
    set(element("submit-error"), "");
    element("submit").showModal();
  }
  if (chosen) choose(chosen);
}

function choose(chosen) {
  file = chosen;
  key = "";
  const text = file ? `${file.name}, ${size(file.size)}` : "or drop one anywhere on this page.";
  set(element("chosen"), text);
  element("paste").hidden = Boolean(file);
  element("unchoose").hidden = !file;
  element("name").placeholder = file?.name ?? "pasted.tsv";
}

function countRows() {
  const lines = element("rows").value.split("\n").filter((line) => line.trim());
  const bad = lines.findIndex((line) => !line.includes("\t"));
  const hint = bad < 0 ? "" : ` Line ${bad + 1} has no tab between caption and address.`;
  set(element("counted"), lines.length ? `${counted(lines.length, "row")}.${hint}` : "");
  element("counted").classList.toggle("bad", bad >= 0);
}

function submit(event) {
  event.preventDefault();
  const body = file ?? new Blob([element("rows").value]);
  if (!body.size || (!file && !element("rows").value.trim())) {
    set(element("submit-error"), file ? "This file is empty." : "Choose a TSV, or paste at least one row.");
    return;
  }
  const fields = [...new FormData(element("submit-form"))].filter(([, value]) => typeof value === "string" && value);
  const query = new URLSearchParams({ name: element("name").value.trim() || element("name").placeholder, ...Object.fromEntries(fields) });
  key ||= Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  set(element("submit-error"), "");
  send(`api/jobs?${query}`, body);
}

function send(path, body) {
  sending = new XMLHttpRequest();
  sending.open("POST", path);
  sending.setRequestHeader("Content-Type", "text/tab-separated-values");
  sending.setRequestHeader("Idempotency-Key", key);
  sending.upload.addEventListener("progress", ({ loaded, total }) => {
    element("sent").value = loaded / total;
    set(element("sent-text"), loaded < total ? `${size(loaded)} of ${size(total)} sent` : "Sent; the service writes it down …");
  });
  sending.addEventListener("loadend", sent);
  element("sent").value = 0;
  sendingNow(true);
  sending.send(body);
}

function sendingNow(yes) {
  element("sending").hidden = !yes;
  element("send").hidden = yes;
  set(element("sent-text"), "");
  set(element("close"), yes ? "Stop sending" : "Close");
}

// Whatever the end was: status 0 is no answer, or that people stopped it.
function sent({ target }) {
  const stopped = sending === null;
  sending = null;
  sendingNow(false);
  if (stopped) return;
  try {
    if (!target.status) throw new Refusal(SILENT);
    const job = answer(target.status, target.responseText, target.getResponseHeader("Retry-After"));
    take(job);
    forgetInput();
    element("submit").close();
    announce(`${job.name}: submitted`);
    location.hash = `#/jobs/${job.id}`;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    set(element("submit-error"), `Not submitted: ${error.message}`);
  }
}

function forgetInput() {
  element("submit-form").reset();
  choose(null);
  countRows();
}

function stopSending() {
  const request = sending;
  sending = null;
  request?.abort();
}
