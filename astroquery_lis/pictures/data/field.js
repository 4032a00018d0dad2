const tools = document.getElementById('tools'); tools.hidden = false;
for (const box of tools.querySelectorAll('input'))
  box.addEventListener('change', () => document.body.classList.toggle('no-' + box.value, !box.checked));
const paint = on => event => {
  const key = event.target.dataset && event.target.dataset.pair; if (!key) return;
  for (const one of document.querySelectorAll(`[data-pair="${key}"]`)) one.classList.toggle('lit', on);
};
document.addEventListener('pointerover', paint(true));
document.addEventListener('pointerout', paint(false));
