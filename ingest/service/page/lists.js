// Lists of which the service gives a page at a time

class Pager {
  // `path(after)` asks for a page, whose `key` holds what `row` makes nodes of.
  constructor(root, name, { path, key, row, none }) {
    Object.assign(this, { path, key, row, none, trail: [""], next: null, turn: 0 });
    this.list = styled("ol", key);
    this.list.setAttribute("aria-label", name);
    this.message = styled("p", "absent");
    this.first = button("← Back", "plain", () => this.move(-1));
    this.more = button("Next →", "plain", () => this.move(1));
    this.place = styled("span", "small quiet");
    this.place.setAttribute("role", "status");
    this.pages = styled("div", "buttons", this.first, this.more, this.place);
    root.replaceChildren(this.list, this.message, this.pages);
  }

  reset() {
    this.trail = [""];
    return this.load();
  }

  move(by) {
    if (by > 0) this.trail.push(this.next);
    else this.trail.pop();
    return this.load();
  }

  // Load the first page again, unless people are past it or within it.
  follow() {
    const busy = this.trail.length > 1 || this.list.contains(document.activeElement);
    return busy ? null : this.load();
  }

  async load() {
    const turn = ++this.turn;
    try {
      const answered = await ask(this.path(this.trail.at(-1)));
      if (turn === this.turn) this.show(answered);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (turn === this.turn) this.fail(error);
    }
  }

  show(answered) {
    this.next = answered.next;
    this.list.replaceChildren(...answered[this.key].map(this.row));
    set(this.message, this.none);
    this.message.hidden = answered[this.key].length > 0;
    const first = this.trail.length === 1;
    this.pages.hidden = first && !this.next;
    this.hide(this.first, first);
    this.hide(this.more, !this.next);
    set(this.place, `Page ${this.trail.length}`);
  }

  // A hidden button has no focus: the other one takes it.
  hide(made, yes) {
    const other = made === this.first ? this.more : this.first;
    const focused = made === document.activeElement;
    made.hidden = yes;
    if (!yes || !focused) return;
    other.hidden = false;
    other.focus();
  }

  fail(error) {
    this.list.replaceChildren();
    this.message.replaceChildren(`Not to be had: ${error.message} `, button("Try again", "plain", () => this.load()));
    this.message.hidden = false;
  }
}
