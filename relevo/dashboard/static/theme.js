// Before anything is drawn: "auto" follows the system.
(() => {
  const page = document.documentElement;
  if (page.dataset.theme !== "auto") return;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const follow = () => {
    page.setAttribute("data-bs-theme", dark.matches ? "dark" : "light");
    document.dispatchEvent(new Event("relevo:theme"));
  };
  dark.addEventListener("change", follow);
  follow();
})();
