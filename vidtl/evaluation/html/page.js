"use strict";

// Sortable tables: a click on a header, or Enter on it, sorts; once more turns round. Cells without a value stay last.
for (const button of document.querySelectorAll("th button")) {
  const header = button.closest("th");
  button.addEventListener("click", () => {
    const textual = button.dataset.kind === "text";
    const before = header.getAttribute("aria-sort");
    const ascending = before === "none" ? textual : before === "descending";
    for (const other of header.parentElement.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const body = header.closest("table").tBodies[0];
    const rows = Array.from(body.rows, (row) => {
      const cell = row.cells[header.cellIndex];
      const text = textual ? cell.textContent.trim() : cell.dataset.value;
      return { row, empty: text === "", value: textual ? text : Number(text) };
    });
    const compare = textual ? new Intl.Collator(undefined, { numeric: true }).compare : (a, b) => a - b;
    rows.sort((a, b) => a.empty - b.empty || (a.empty ? 0 : compare(a.value, b.value) * (ascending ? 1 : -1)));
    body.append(...rows.map((entry) => entry.row));
  });
}

const find = document.getElementById("find");
const classRows = Array.from(document.getElementById("class-table").tBodies[0].rows);
if (classRows.length > 12) {
  find.closest(".tools").hidden = false;
  find.addEventListener("input", () => {
    const wanted = find.value.trim().toLowerCase();
    let shown = 0;
    for (const row of classRows) {
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
      shown += row.hidden ? 0 : 1;
    }
    document.getElementById("found").value = wanted ? `${shown} of ${classRows.length}` : "";
  });
}

// The confusion matrix. Cells are [true, answer, count]; the answer after the last class stands for unreadable videos.
function drawMatrix(canvas, data) {
  const context = canvas.getContext("2d");
  const readout = document.getElementById("cell");
  const hint = readout.textContent;
  const classes = data.names.length;
  const columns = classes + (data.unreadable ? 1 : 0);
  const totals = new Array(classes).fill(0);
  const errors = new Array(classes).fill(0);
  const counts = new Map();
  for (const [row, column, count] of data.cells) {
    totals[row] += count;
    if (row !== column) errors[row] += count;
    counts.set(row * (classes + 1) + column, count);
  }
  // Right answers last: where cells are smaller than a pixel, the diagonal stays whole.
  const cells = [...data.cells].sort((a, b) => (a[0] === a[1]) - (b[0] === b[1]));
  const orders = { class: data.names.map((_, index) => index) };
  orders.errors = [...orders.class].sort((a, b) => errors[b] - errors[a] || a - b);
  let order = orders.class;
  let places = placesOf(order);
  let zoom = 1, left = 0, top = 0, cursor = null;
  const edge = 8;  // so that the last label is not cut
  let width = 0, margin = 0, plot = 0, base = 0;

  function placesOf(numbers) {
    const result = new Array(classes + 1).fill(classes);
    numbers.forEach((number, place) => { result[number] = place; });
    return result;
  }
  const nameAt = (place) => (place === classes ? "unreadable" : data.names[order[place]]);
  const numberAt = (place) => (place === classes ? classes : order[place]);
  const cellSize = () => base * zoom;
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  function layOut() {
    width = Math.floor(canvas.parentElement.clientWidth);
    context.font = "11px system-ui, sans-serif";
    const longest = data.names.reduce((most, name) => Math.max(most, context.measureText(name.slice(0, 60)).width), 60);
    margin = Math.ceil(Math.min(longest + 10, width * 0.32, 190));
    plot = Math.min(width - margin - edge, 760, Math.max(columns * 52, 208));
    base = plot / columns;
    const ratio = window.devicePixelRatio || 1;
    const across = margin + plot + edge, down = margin + base * classes + edge;
    canvas.style.width = `${across}px`;
    canvas.style.height = `${down}px`;
    canvas.width = Math.round(across * ratio);
    canvas.height = Math.round(down * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    move(left, top);
  }

  function move(x, y) {
    const size = cellSize();
    left = clamp(x, 0, Math.max(size * columns - plot, 0));
    top = clamp(y, 0, Math.max(size * classes - base * classes, 0));
    canvas.style.touchAction = zoom > 1 ? "none" : "auto";
    paint();
  }

  function zoomBy(factor, x = margin + plot / 2, y = margin + (base * classes) / 2) {
    const before = cellSize();
    zoom = clamp(zoom * factor, 1, Math.max(1, 52 / base));
    const grown = cellSize() / before;
    move((left + x - margin) * grown - (x - margin), (top + y - margin) * grown - (y - margin));
  }

  function paint() {
    const css = getComputedStyle(document.documentElement);
    const colour = (name) => css.getPropertyValue(name).trim();
    const size = cellSize();
    const height = base * classes;
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.save();
    context.beginPath();
    context.rect(margin, margin, plot, height);
    context.clip();
    context.fillStyle = colour("--raised");
    context.fillRect(margin, margin, plot, height);
    if (size >= 7) {
      context.strokeStyle = colour("--line");
      context.lineWidth = 0.5;
      context.beginPath();
      for (let x = margin - (left % size); x <= margin + plot; x += size) { context.moveTo(x, margin); context.lineTo(x, margin + height); }
      for (let y = margin - (top % size); y <= margin + height; y += size) { context.moveTo(margin, y); context.lineTo(margin + plot, y); }
      context.stroke();
    }
    const least = Math.max(size, 1.6);
    const right = `rgb(${colour("--right-rgb")})`, wrong = `rgb(${colour("--wrong-rgb")})`;
    context.font = `${clamp(size * 0.32, 9, 15)}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (const [row, column, count] of cells) {
      const x = margin + places[column] * size - left, y = margin + places[row] * size - top;
      if (x + size < margin || y + size < margin || x > margin + plot || y > margin + height) continue;
      const strength = 0.22 + 0.78 * Math.sqrt(count / totals[row]);
      context.globalAlpha = strength;
      context.fillStyle = row === column ? right : wrong;
      context.fillRect(x, y, least, least);
      context.globalAlpha = 1;
      if (size >= 19) {
        context.fillStyle = strength > 0.62 ? colour("--paper") : colour("--ink");
        context.fillText(String(count), x + size / 2, y + size / 2);
      }
    }
    if (cursor) {
      context.strokeStyle = colour("--ink");
      context.lineWidth = 1.5;
      context.strokeRect(margin + cursor[1] * size - left, margin + cursor[0] * size - top, size, size);
    }
    context.restore();
    paintLabels(size, height, colour);
  }

  function paintLabels(size, height, colour) {
    const step = Math.max(1, Math.ceil(13 / size));
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    const write = (name, strong) => {
      context.fillStyle = colour(strong ? "--ink" : "--muted");
      context.fillText(shortened(name, margin - 8), 0, 0);
    };
    for (let place = 0; place < columns; place += 1) {
      const marked = cursor !== null && cursor[1] === place;
      const x = margin + (place + 0.5) * size - left;
      const crowded = columns > classes && place !== classes && classes - place < step;
      if ((place % step && place !== classes) || crowded || x < margin || x > margin + plot) continue;
      context.save();
      context.translate(x, margin - 6);
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      write(nameAt(place), marked);
      context.restore();
    }
    for (let place = 0; place < classes; place += step) {
      const y = margin + (place + 0.5) * size - top;
      if (y < margin || y > margin + height) continue;
      context.save();
      context.translate(margin - 6, y);
      context.textAlign = "right";
      write(nameAt(place), cursor !== null && cursor[0] === place);
      context.restore();
    }
  }

  function shortened(name, room) {
    if (context.measureText(name).width <= room) return name;
    let letters = Array.from(name).slice(0, 60);
    while (letters.length > 1 && context.measureText(`${letters.join("")}…`).width > room) letters.pop();
    return `${letters.join("")}…`;
  }

  function tell(next) {
    cursor = next;
    if (cursor) {
      const row = numberAt(cursor[0]), column = numberAt(cursor[1]);
      const count = counts.get(row * (classes + 1) + column) || 0;
      const share = totals[row] ? ` (${((100 * count) / totals[row]).toFixed(1)} %)` : "";
      readout.textContent = `True: ${nameAt(cursor[0])}. Answer: ${nameAt(cursor[1])}. ${count} of ${totals[row]} videos${share}`;
    } else {
      readout.textContent = hint;
    }
    paint();
  }

  function cellAt(event) {
    const column = Math.floor((event.offsetX - margin + left) / cellSize());
    const row = Math.floor((event.offsetY - margin + top) / cellSize());
    const inside = event.offsetX >= margin && event.offsetX < margin + plot && event.offsetY >= margin && event.offsetY < margin + base * classes;
    if (row >= classes || column >= columns) return null;
    return inside ? [row, column] : null;
  }

  let dragged = null;
  canvas.addEventListener("pointerdown", (event) => {
    dragged = [event.offsetX + left, event.offsetY + top];
    canvas.setPointerCapture(event.pointerId);
    tell(cellAt(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (dragged && zoom > 1) {
      move(dragged[0] - event.offsetX, dragged[1] - event.offsetY);
    } else {
      tell(cellAt(event));
    }
  });
  canvas.addEventListener("pointerup", () => { dragged = null; });
  canvas.addEventListener("pointercancel", () => { dragged = null; });
  canvas.addEventListener("pointerleave", () => { if (!dragged) tell(null); });
  canvas.addEventListener("dblclick", (event) => zoomBy(2, event.offsetX, event.offsetY));
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== canvas) return;  // otherwise the page could not be scrolled past
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / 300), event.offsetX, event.offsetY);
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const step = steps[event.key];
    if (step) {
      const [row, column] = cursor || [0, 0];
      const next = [clamp(row + step[0], 0, classes - 1), clamp(column + step[1], 0, columns - 1)];
      const size = cellSize(), height = base * classes;
      tell(cursor ? next : [0, 0]);
      move(clamp(left, (cursor[1] + 1) * size - plot, cursor[1] * size), clamp(top, (cursor[0] + 1) * size - height, cursor[0] * size));
    } else if (event.key === "+" || event.key === "=") {
      zoomBy(1.5);
    } else if (event.key === "-") {
      zoomBy(1 / 1.5);
    } else if (event.key === "0") {
      zoomBy(0);
    } else if (event.key === "Escape") {
      tell(null);
    } else {
      return;
    }
    event.preventDefault();
  });
  document.getElementById("zoom-in").addEventListener("click", () => zoomBy(1.6));
  document.getElementById("zoom-out").addEventListener("click", () => zoomBy(1 / 1.6));
  document.getElementById("zoom-all").addEventListener("click", () => zoomBy(0));
  document.getElementById("order").addEventListener("change", (event) => {
    order = orders[event.target.value];
    places = placesOf(order);
    tell(null);
  });
  canvas.closest(".matrix").querySelector(".tools").hidden = classes < 5;
  window.addEventListener("resize", layOut);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  for (const [name, onPaper] of [["beforeprint", true], ["afterprint", false]]) {
    window.addEventListener(name, () => { document.documentElement.classList.toggle("on-paper", onPaper); paint(); });
  }
  layOut();
}

const matrix = document.getElementById("matrix");
if (matrix) drawMatrix(matrix, JSON.parse(document.getElementById("matrix-data").textContent));
