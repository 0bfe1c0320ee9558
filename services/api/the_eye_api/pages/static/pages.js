document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if ("themeSwitch" in button.dataset) {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
  } else if (button.dataset.copy) {
    const label = button.textContent;
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      // Without HTTPS browsers let no page write to the clipboard: the text is selected, to be copied by hand.
      getSelection().selectAllChildren(source);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = label; }, 2000);
  }
});

document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

// An exact range and one up to now exclude each other: whoever chooses one leaves the other.
document.addEventListener("change", (event) => {
  const form = event.target.form;
  if (event.target.name === "last" && form) {
    for (const name of ["from", "to"]) if (form.elements[name]) form.elements[name].value = "";
  }
}, true);

// What the server says about a request of htmx's that failed, instead of nothing; 400 comes with the filter's faults.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.xhr.status === 400) event.detail.shouldSwap = true;
});
