// Every two seconds the page asks for itself and takes over what changed.
(() => {
  "use strict";
  const lost = document.getElementById("lost");
  let since = null;
  async function refresh() {
    if (document.hidden || String(getSelection()) !== "") return;
    try {
      const answer = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(5000) });
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const scrolled = [...document.querySelectorAll(".scroll")].map((e) => e.scrollLeft);
      document.getElementById("live").replaceWith(fresh.getElementById("live"));
      document.querySelectorAll(".scroll").forEach((e, i) => { e.scrollLeft = scrolled[i] || 0; });
      document.title = fresh.title;
      since = null;
      lost.hidden = true;
    } catch {
      since = since || new Date();
      lost.textContent = "No answer from the daemon since " + since.toLocaleTimeString() + "; what you see is from before.";
      lost.hidden = false;
    }
  }
  (async () => {
    for (;;) {
      await new Promise((done) => setTimeout(done, 2000));
      await refresh();
    }
  })();
})();
