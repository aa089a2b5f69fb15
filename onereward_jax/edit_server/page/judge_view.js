// Two results before the judge: which is better, in every dimension of the task?

import { announce, button, element } from "./dom.js";
import { submitted } from "./edit_client.js";

const percent = (part) => `${Math.round(100 * part)} %`;

/** What the judge says in one dimension, with a bar of the share of a. */
function answerRow({ dimension, a_first, b_first, a_is_better }, [a, b]) {
  const [better, sure] = a_is_better >= 0.5 ? [a, a_is_better] : [b, 1 - a_is_better];
  const share = element("div", { class: "share" });
  share.style.width = `${100 * a_is_better}%`;
  const isDoubtful = a_first > 0.5 === b_first > 0.5;
  return element("div", { class: "answer" },
    element("span", { class: "dimension" }, dimension.replaceAll("_", " ")),
    element("div", { class: "shares", "aria-hidden": "true" }, share),
    element("b", {}, `${better.letter} ${percent(sure)}`),
    isDoubtful ? element("span", {
      class: "soft doubt", title: "asked in the other order, the judge says the opposite",
    }, "orders disagree") : null,
  );
}

/** The panel below the results. */
export class JudgeView {
  constructor(name) {
    this.pair = [];
    this.asking = button({ class: "ask", onclick: () => this.ask() }, "Which is better?");
    this.status = element("p", { class: "soft status" });
    this.answers = element("div", { class: "answers" });
    this.element = element("section", { class: "judge", "aria-label": "the judge", hidden: true },
      element("div", { class: "row" }, this.asking, this.status), this.answers);
    this.hasJudge = Boolean(name);
    this.stop = new AbortController();
    this.choose([]);
  }

  /** There are so many results; with two the judge can be asked. */
  offer(count) {
    this.element.hidden = !this.hasJudge || count < 2;
  }

  /** Takes the results to compare; the former answers go. */
  choose(pair) {
    this.stop.abort();
    this.pair = pair;
    this.asking.disabled = pair.length !== 2;
    this.answers.replaceChildren();
    const names = pair.map(({ letter }) => letter).join(" and ");
    this.status.textContent = pair.length === 2 ? names : "Choose two results to compare.";
  }

  async ask() {
    const [a, b] = this.pair;
    this.asking.disabled = true;
    this.stop = new AbortController();
    const { signal } = this.stop;
    try {
      const state = await submitted("/api/judgements", {
        a: a.id, b: b.id, task: a.task, prompt: a.prompt,
      }, {
        signal,
        onstate: ({ state: now, step, steps }) => {
          this.status.textContent = now === "waiting" ? "waiting" : `asked ${step} of ${steps}`;
        },
        onwait: (sentence, seconds) => {
          this.status.textContent = `${sentence}; next try in ${seconds} s`;
        },
      });
      if (state.error) throw new Error(state.error);
      this.show(state.answers, [a, b]);
    } catch (error) {
      if (!signal.aborted) this.status.textContent = error.message;
    }
    if (!signal.aborted) this.asking.disabled = false;
  }

  show(answers, pair) {
    const mean = answers.reduce((sum, one) => sum + one.a_is_better, 0) / answers.length;
    const [better, sure] = mean >= 0.5 ? [pair[0], mean] : [pair[1], 1 - mean];
    this.status.textContent = `${better.letter} is better: ${percent(sure)} on average`;
    announce(this.status.textContent);
    this.answers.replaceChildren(...answers.map((one) => answerRow(one, pair)));
  }
}
