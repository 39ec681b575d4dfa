// Time: the moments kept, played at 30 a second, or one by one. Every moment is drawn, none is skipped.

const TICK = 1000 / 30;
const still = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;

class Timed extends Large {
  buildTime() {
    this.time = el("div", "time");
    this.playButton = Object.assign(el("button", "play"), { type: "button" });
    this.scrubber = Object.assign(el("input"), { type: "range", min: 0, step: 1 });
    this.scrubber.setAttribute("aria-label", "Moment");
    this.when = el("span", "when");
    this.time.append(this.playButton, this.scrubber, this.when);
    this.film = null; // not asked for yet, or another by now
    this.moment = null; // number of the moment shown; null: the present
    this.playing = this.starting = false; // starting: Play was pressed, the film is on its way
    this.playButton.addEventListener("click", () => this.toggle());
    this.scrubber.addEventListener("input", () => {
      const to = Number(this.scrubber.value);
      this.pause();
      this.withFilm(() => this.goTo(to));
    });
    for (const name of ["pointerenter", "focusin"]) this.time.addEventListener(name, () => this.askFilm());
  }

  get count() {
    return this.present?.film?.[0] ?? 1;
  }

  get shownMoment() {
    return this.moment ?? this.count - 1;
  }

  // A new moment came from Python: it is shown, whatever was played.
  toPresent() {
    this.stop();
    this.moment = null;
    this.pieces = null;
    if (this.film && this.film.version !== this.present.film?.[1]) this.film = null;
    this.showTime();
  }

  askFilm() {
    if (this.film || this.asking === this.present.film[1] || this.count < 2) return;
    this.asking = this.present.film[1];
    this.model.send({ ask: "film" });
  }

  withFilm(action) {
    if (this.film) return action();
    this.wanted = action;
    this.askFilm();
  }

  async takeFilm(about, data) {
    const film = await Film.from(about, data);
    if (film.version !== this.present.film?.[1]) return; // the machine went on meanwhile: asked again when wanted
    this.film = film;
    this.asking = null;
    const action = this.wanted;
    this.wanted = null;
    action?.();
  }

  goTo(number) {
    const { frames, layouts, pieces } = this.film;
    const to = Math.max(0, Math.min(frames.length - 1, number));
    const { tiles, info } = frames[to];
    if (!this.pieces) [this.cells, this.orders] = [this.cells.slice(), this.orders.slice()]; // not Python's own
    const changed = new Set();
    tiles.forEach((piece, k) => {
      if (this.pieces?.[k] === piece) return;
      const at = pieces[k][0];
      this.cells.set(piece[0], at);
      this.orders.set(piece[1], at);
      const span = this.meta.spans.findLast((each) => each[2] <= at);
      changed.add(tileOf(span[0] + at - span[2]));
    });
    this.pieces = tiles;
    this.moment = to;
    this.meta = { ...this.present, ...info, layouts: layouts[info.layout] };
    this.showMoment(changed);
    this.showTime();
  }

  step(by) {
    if (this.count < 2) return;
    this.pause();
    this.withFilm(() => this.goTo(this.shownMoment + by));
  }

  toggle() {
    if (this.playing || this.starting) return this.pause();
    if (this.count < 2) return;
    const first = this.wanted; // a place on the slider that still waits for the film
    this.starting = true;
    this.withFilm(() => {
      this.starting = false;
      first?.();
      this.play();
    });
  }

  play() {
    if (this.shownMoment >= this.count - 1) this.goTo(0);
    this.playing = true;
    this.showTime();
    const gap = still() ? 1000 : TICK;
    let due = performance.now() + gap;
    const tick = (now) => {
      if (!this.playing) return;
      if (now >= due - 1) {
        due = Math.max(due + gap, now); // a late moment is shown late, not left out
        this.goTo(this.moment + 1);
        if (this.moment >= this.count - 1) return this.pause();
      }
      this.ticking = requestAnimationFrame(tick);
    };
    this.ticking = requestAnimationFrame(tick);
  }

  stop() {
    cancelAnimationFrame(this.ticking);
    this.playing = this.starting = false;
    this.wanted = null;
  }

  pause() {
    const played = this.playing;
    this.stop();
    if (!played) return;
    this.draw(); // what grew for a moment may shrink again
    this.showTime();
  }

  showTime() {
    this.time.hidden = this.count < 2;
    if (this.time.hidden) return;
    const total = (this.present.total || this.present.calls).toLocaleString("en");
    const words = `call ${this.meta.calls.toLocaleString("en")} of ${total}: ${this.meta.call || "nothing asked yet"}`;
    const label = this.playing ? "❚❚ Pause" : "▶ Play";
    if (this.playButton.textContent !== label) this.playButton.textContent = label;
    this.scrubber.max = this.count - 1;
    this.scrubber.value = this.shownMoment;
    this.scrubber.setAttribute("aria-valuetext", words);
    this.when.textContent = words;
    if (!this.playing && this.moment !== null) this.say(words);
  }
}
