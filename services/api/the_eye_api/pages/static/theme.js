// In the head and not deferred, so that no page shows in one theme first and in the other a moment later.
const theme = localStorage.getItem("theme");
if (theme) document.documentElement.dataset.theme = theme;
