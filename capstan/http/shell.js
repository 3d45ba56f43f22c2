// What the pages share: elements, refusals, messages, files dropped anywhere. Each page's own
// scripts follow.

const element = (id) => document.getElementById(id);

function make(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

function styled(name, kind, ...children) {
  const made = make(name, ...children);
  made.className = kind;
  return made;
}

function button(text, kind, action) {
  const made = styled("button", kind, text);
  made.type = "button";
  made.addEventListener("click", action);
  return made;
}

// Why something was not to be had, for people; `facts` are for the page.
class Refusal extends Error {
  constructor(text, facts = {}) {
    super(text);
    Object.assign(this, facts);
  }
}

// A message that stays until it is dismissed or, where `again` can, what failed is tried again.
function warn(name, text, again = null) {
  const item = make("li", make("span", make("b", name), `: ${text}`));
  const dismiss = () => item.remove();
  if (again) item.append(button("Try again", "plain", () => { dismiss(); again(); }));
  item.append(button("Dismiss", "plain", dismiss));
  element("messages").append(item);
}

function onDrop(take) {
  document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dragging"); });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    take(event.dataTransfer.files);
  });
}
