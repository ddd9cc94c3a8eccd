// What leaves a task's page goes once the server has answered; until then the page stays, and an answer waits (offline.js).
"use strict";

function sendWhenReached(form, offline, words) {
  const going = new Set();

  // What the server answers; null where it does not. What is in the form is saved on the way.
  async function reach() {
    if (offline.isCutOff()) return null;
    const { draft } = form.dataset;
    const options = { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(SEND_MS) };
    try {
      const answer = await (draft ? fetch(draft, { ...options, method: "POST", body: new FormData(form) }) : fetch(location.href, options));
      return isAway(answer) ? null : answer;
    } catch {
      return null;
    }
  }

  async function send(sent, submitter) {
    const fields = new URLSearchParams(new FormData(sent, submitter));
    const isAnswer = sent === form && !submitter?.hasAttribute("formaction");
    const letGo = holdStill(form);
    submitter?.classList.add("is-busy");
    const answer = await reach();
    letGo();
    submitter?.classList.remove("is-busy");
    if (answer !== null && !isSignedOut(answer)) {
      going.add(sent);
      sent.requestSubmit(submitter);
    } else if (isAnswer) offline.keep(fields);
    else if (answer === null) offline.say(words.notDone);
    else offline.say(unsentWords.draftSignedOut, " ", linkToSignIn());
  }

  for (const sent of [form, ...["skip", "release", "leave", "next"].map((id) => document.getElementById(id))]) {
    sent?.addEventListener("submit", (event) => {
      if (going.delete(sent)) return;
      event.preventDefault();
      if (!form.inert) send(sent, event.submitter);
    });
  }
}
