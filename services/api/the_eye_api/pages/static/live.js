const live = document.getElementById("live");
if (live) watch();

function watch() {
  const SHOWN = 300, HELD = 1000;
  const rows = document.getElementById("live-rows");
  const state = document.getElementById("live-state");
  const heldText = document.getElementById("live-held");
  const missedText = document.getElementById("live-missed");
  const pause = document.getElementById("pause");
  let paused = false, held = [], missed = 0;

  // The rows come from the server's templates, in which everything that was sent is escaped.
  const parse = (html) => [...new DOMParser().parseFromString(`<table><tbody>${html}</tbody></table>`, "text/html").querySelectorAll("tr")];

  function show(newRows) {
    document.getElementById("live-empty").hidden = true;
    for (const row of newRows) rows.prepend(row);
    while (rows.rows.length > SHOWN) rows.lastElementChild.remove();
  }

  function miss(events) {
    missed += events;
    missedText.hidden = missed === 0;
    missedText.textContent = `${missed.toLocaleString("en")} came too fast to be shown: narrow the filter.`;
  }

  function hold(newRows) {
    held.push(...newRows);
    if (held.length > HELD) miss(held.splice(0, held.length - HELD).length);
    tellHeld();
  }

  function tellHeld() {
    heldText.hidden = held.length === 0;
    heldText.textContent = `${held.length.toLocaleString("en")} more since`;
  }

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on" : "Pause";
    tellState();
    if (!paused) {
      show(held);
      held = [];
      tellHeld();
    }
  });

  let connected = false;
  function tellState() {
    state.textContent = !connected ? "Connecting …" : paused ? "Paused" : "Watching";
  }

  const source = new EventSource(live.dataset.stream);
  source.addEventListener("watching", () => { connected = true; tellState(); });
  source.addEventListener("events", (event) => (paused ? hold : show)(parse(event.data)));
  source.addEventListener("missed", (event) => miss(Number(event.data)));
  source.addEventListener("error", () => {
    connected = false;
    tellState();
    // Not to be connected again by the browser: signed out, or a filter with faults. The page says which.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
  });
  addEventListener("pagehide", () => source.close());
}
