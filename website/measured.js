// What is wrong with a page as it is shown now, as a list of texts.
() => {
  const faults = [];
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) {
    const wide = [...document.querySelectorAll("article *")].filter(
      (x) => x.getBoundingClientRect().right > width + 1 && !x.closest("pre, .md-typeset__scrollwrap, table"));
    faults.push(`${document.documentElement.scrollWidth} pixels wide: ${wide.slice(0, 3).map(
      (x) => x.outerHTML.slice(0, 80))}`);
  }
  for (const image of document.images) {
    if (!image.complete || image.naturalWidth === 0) faults.push(`no picture ${image.src}`);
    else if (image.getBoundingClientRect().width > width) faults.push(`a wide picture ${image.src}`);
  }

  // colours, as [red, green, blue, opacity], are read off a canvas: they have many notations
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const colour = (text) => {
    if (!known.has(text)) {
      context.clearRect(0, 0, 1, 1);
      context.fillStyle = text;
      context.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
      known.set(text, [r, g, b, a / 255]);
    }
    return known.get(text);
  };
  const over = (above, below) => above.slice(0, 3).map((x, i) => x * above[3] + below[i] * (1 - above[3]));
  const luminance = (c) => {
    const [r, g, b] = c.map((x) => (x / 255 <= 0.04045 ? x / 255 / 12.92 : ((x / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const grounds = new Map([[null, [255, 255, 255]]]);
  const behind = (element) => {
    if (!grounds.has(element)) {
      grounds.set(element, over(colour(getComputedStyle(element).backgroundColor), behind(element.parentElement)));
    }
    return grounds.get(element);
  };
  const faint = new Map();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.textContent.trim() || !element.checkVisibility({ visibilityProperty: true })) continue;
    if (!element.closest("article, .md-nav, .md-header, .md-footer")) continue;
    const style = getComputedStyle(element);
    if (style.opacity !== "1" || element.matches(".headerlink, script, style")) continue;
    const below = behind(element);
    const [a, b] = [luminance(over(colour(style.color), below)), luminance(below)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && parseInt(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) {
      const what = `${element.tagName}.${element.className} ${style.color}`;
      if (!faint.has(what)) faint.set(what, `contrast ${ratio.toFixed(2)} of "${
        texts.currentNode.textContent.trim().slice(0, 30)}" (${what})`);
    }
  }
  return faults.concat([...faint.values()]);
}
