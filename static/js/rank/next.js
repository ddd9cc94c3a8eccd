// Submit and skip without leaving the page: what comes back is put in the place of what was there.
"use strict";

let shown = null; // the ranking in the page, as `startRanking` gives it
let shownPath = location.pathname;

function goOnInPlace(form, offline, { signal, words }) {
  const others = ["skip", "leave", "release"].map((name) => document.getElementById(name)); // acts that give the task away

  async function send(sent, submitter) {
    if (form.inert) return;
    const fields = new URLSearchParams(new FormData(sent, submitter));
    const isAnswer = sent === form;
    const wait = () => (isAnswer ? offline.keep(fields) : offline.say(words.notPassedOn));
    if (offline.isCutOff()) return wait();
    const letGo = holdStill(form);
    submitter?.classList.add("is-busy");
    if (isAnswer) form.dispatchEvent(new Event("sent")); // a task that is skipped keeps its draft
    try {
      const answer = await fetch(sent.action, {
        method: "POST",
        body: fields,
        headers: { "HX-Request": "true", Accept: "text/html" },
        signal: AbortSignal.timeout(SEND_MS),
      });
      if (isAway(answer) || (isAnswer && answer.status === 403)) throw new Error(`status ${answer.status}`);
      if (isAnswer && isSignIn(answer)) offline.shelve(fields); // for after the sign-in
      await showAnswer(answer, isAnswer ? words.storedNext : words.skippedNext);
    } catch {
      letGo();
      submitter?.classList.remove("is-busy");
      form.dispatchEvent(new Event("unsent"));
      wait();
    }
  }

  window.addEventListener("pageshow", (event) => event.persisted && (form.inert = false), { signal });
  for (const sent of [form, ...others]) {
    sent?.addEventListener(
      "submit",
      (event) => {
        if (event.submitter?.hasAttribute("formaction")) {
          if (offline.isCutOff()) event.preventDefault(); // a question to an admin, no answer: asked again with a connection
          return;
        }
        if (!form.dataset.draft && !offline.isCutOff()) return; // a revision goes back to the history
        event.preventDefault();
        send(sent, event.submitter);
      },
      { signal },
    );
  }
}

const isSignIn = (answer) => answer.headers.has("HX-Redirect") || new URL(answer.url).pathname === "/login";

// A ranking is put in the page, as is what says why an answer was not stored; for any other page the browser goes there.
async function showAnswer(answer, told) {
  const address = new URL(answer.headers.get("HX-Redirect") ?? answer.headers.get("HX-Push-Url") ?? answer.url, location.href);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const main = page.querySelector("main") ?? page.body;
  const form = main.querySelector("#rank");
  if (!form && answer.ok) return location.assign(address);
  if (!form && isSignIn(answer)) return location.assign(address);
  const live = document.querySelector("[data-live]");
  shown.stop();
  if (page.title) document.title = page.title;
  if (page.querySelector("main")) document.querySelector("main").className = main.className;
  if (answer.ok && address.pathname + address.search !== location.pathname + location.search) history.pushState(null, "", address);
  shownPath = location.pathname;
  const place = document.querySelector("main");
  place.replaceChildren(...main.childNodes);
  window.htmx?.process(place);
  scrollTo(0, 0);
  if (!form) return place.focus();
  place.querySelector("[data-live]").replaceWith(live); // the region that readers listen to already
  shown = startRanking(place.querySelector("#rank"));
  if (!answer.ok) return;
  shown.focus();
  scrollTo(0, 0);
  live.textContent = told;
}

// Back and forward lead to other tasks, which the server has; a link within the page leads to none.
addEventListener("popstate", () => location.pathname === shownPath || location.reload());

shown = startRanking(document.getElementById("rank"));
