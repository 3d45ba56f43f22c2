// Pieces of the page

function attributes(node, values) {
  Object.entries(values).forEach(([name, value]) => node.setAttribute(name, value));
}

// What strangers wrote, which may be of any direction and length.
const foreign = (kind, text) => {
  const made = styled("bdi", kind, text);
  made.title = text;
  return made;
};

function address(url) {
  if (!/^https?:\/\//i.test(url ?? "") || !URL.canParse(url)) return foreign("address", url ?? "");
  const made = make("a", foreign("address", url));
  Object.assign(made, { href: url, target: "_blank", rel: "noopener noreferrer nofollow" });
  return made;
}

function set(node, text) {
  if (node.textContent !== text) node.textContent = text; // so that a selection and a reader's place stay
}

function figures(list, pairs) {
  const wanted = pairs.filter(([, value]) => value !== null && value !== undefined);
  if (list.children.length !== wanted.length)
    list.replaceChildren(...wanted.map(() => make("div", make("dt"), make("dd"))));
  wanted.forEach(([name, value], place) => {
    const [term, text] = list.children[place].children;
    set(term, name);
    if (value instanceof Node) {
      if (text.textContent !== value.textContent) text.replaceChildren(value);
    } else set(text, value);
  });
}

// Reconcile a list with the wanted nodes, moving as little as can be: a moved one loses the focus.
function arrange(list, wanted) {
  const keep = new Set(wanted);
  [...list.children].forEach((child) => { if (!keep.has(child)) child.remove(); });
  const focused = document.activeElement;
  wanted.forEach((node, place) => {
    if (list.children[place] !== node) list.insertBefore(node, list.children[place] ?? null);
  });
  if (focused !== document.activeElement && list.contains(focused)) focused.focus({ preventScroll: true });
}

function complain(name, error) {
  if (!(error instanceof Refusal)) throw error;
  if (error.status === 401) return; // the form that asks for the token says it
  warn(foreign("", name), error.message);
}

const announce = (text) => { element("news").textContent = text; };

// Resolves to whether people are sure.
function asked(title, text, yes) {
  set(element("question-title"), title);
  set(element("question-text"), text);
  set(element("yes"), yes);
  const dialog = element("question");
  dialog.returnValue = "";
  dialog.showModal();
  element("no").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
