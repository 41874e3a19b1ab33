// The code stands behind # so that no server's log has it; here it goes into the form, and out of the address.
"use strict";
const form = document.querySelector("form[data-code]");
const code = decodeURIComponent(location.hash.slice(1));
if (form && code) {
  history.replaceState(null, "", location.pathname);
  form.elements.code.value = code;
  if (form.dataset.code === "send") form.submit();
}
