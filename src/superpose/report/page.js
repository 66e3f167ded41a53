
(() => {
  const root = document.documentElement;
  const remembered = () => {
    try { return localStorage.getItem("superpose-theme"); } catch { return null; }
  };
  const show = (theme) => {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
  };
  show(remembered());
  addEventListener("DOMContentLoaded", () => {
    const toggle = document.querySelector(".theme");
    const now = root.dataset.theme ?? "auto";
    for (const choice of toggle.querySelectorAll("input")) {
      choice.checked = choice.value === now;
      choice.addEventListener("change", () => {
        show(choice.value);
        try { localStorage.setItem("superpose-theme", choice.value); } catch { /* kept for this visit */ }
      });
    }
    toggle.hidden = false;
  });
  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
  });
})();
