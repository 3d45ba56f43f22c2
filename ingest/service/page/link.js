// The link to the service: a stream of events, asked for again until it is back

async function begin() {
  clearTimeout(retry);
  heard = Date.now();
  try {
    note(await ask("statistics")); // a stream would not say why it is refused
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    if (error.status !== 401) lost(error.message);
    return;
  }
  source?.close();
  source = new EventSource("api/events");
  source.addEventListener("open", linked);
  source.addEventListener("error", () => lost(SILENT));
  source.addEventListener("job", (event) => {
    const job = JSON.parse(event.data);
    told.add(job.id);
    take(job);
  });
  source.addEventListener("removed", (event) => forget(JSON.parse(event.data).id));
  source.addEventListener("statistics", (event) => note(JSON.parse(event.data)));
}

async function linked() {
  told.clear();
  try {
    await list();
    await view?.refresh();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    if (error.status !== 401) lost(error.message);
    return;
  }
  wait = 1000;
  element("lost").hidden = true;
  element("lost").textContent = "";
  element("loading").hidden = element("login").hidden = true;
  element("link").hidden = element("new").hidden = false;
  element("link").dataset.live = "yes";
  set(element("link"), "live");
  element("leave").hidden = !remembered();
  document.body.classList.remove("stale");
  route();
}

function lost(why) {
  source?.close();
  source = null;
  clearTimeout(retry);
  element("loading").hidden = true;
  element("lost").hidden = false;
  set(element("lost"), `Connection lost, trying again: ${why}`);
  element("link").dataset.live = "no";
  set(element("link"), "offline");
  document.body.classList.add("stale");
  retry = setTimeout(begin, wait);
  wait = Math.min(2 * wait, LONGEST_WAIT);
}

function showLogin() {
  source?.close();
  source = null;
  clearTimeout(retry);
  for (const id of ["overview", "job", "loading", "link", "leave", "new", "lost"]) element(id).hidden = true;
  element("submit").close();
  if (!element("login").hidden) return;
  element("login").hidden = false;
  element("token").focus();
}

async function signIn(event) {
  event.preventDefault();
  set(element("login-error"), "");
  try {
    await ask("session", { method: "POST", json: { token: element("token").value } });
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    set(element("login-error"), error.status === 401 ? "This is not its token." : error.message);
    return;
  }
  element("token").value = "";
  remember(true);
  await begin();
}

async function signOut() {
  await ask("session", { method: "DELETE" }).catch((error) => complain("Signing out", error));
  remember(false);
  jobs.clear();
  await begin();
}

function remember(yes) {
  try {
    if (yes) localStorage.setItem(SIGNED_IN, "yes");
    else localStorage.removeItem(SIGNED_IN);
  } catch {
    // storage is not allowed: the session then ends with its cookie
  }
}

function remembered() {
  try {
    return localStorage.getItem(SIGNED_IN) !== null;
  } catch {
    return false;
  }
}
