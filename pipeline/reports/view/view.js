"use strict";
(() => {
  // Texts of documents reach the page as text nodes and attributes alone, never as markup.
  const byId = (id) => document.getElementById(id);
  const number = (value) => value.toLocaleString("en");
  const counted = (n, thing) => `${number(n)} ${thing}${n === 1 ? "" : "s"}`;
  const page = crypto.getRandomValues(new Uint32Array(2)).join("-");
  const LIMIT = 25;
  const TYPING_MS = 250;

  let run = null;
  let wanted = { text: "", filters: {} };
  let found = [];
  let searching = null;
  let timer = 0;

  function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in made) made[name] = value;
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  // calls

  async function* answers(name, body, signal) {
    const response = await fetch(`calls/${name}`, { method: "POST", body: JSON.stringify(body), signal });
    if (!response.ok) throw new Error(`the command refused this call: ${response.status} ${response.statusText}`);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const answer = JSON.parse(line);
        if (answer.error) throw new Error(answer.error);
        yield answer;
      }
    }
  }

  async function answer(name, body) {
    for await (const one of answers(name, body)) return one;
    throw new Error("the command ended its answer early; its terminal has the reason");
  }

  // the list

  function query() {
    const filters = Object.entries(wanted.filters).map(([column, filter]) => ({ column, ...filter }));
    return { page, text: wanted.text, filters, limit: LIMIT };
  }

  function changed() {
    clearTimeout(timer);
    timer = setTimeout(() => search(), TYPING_MS);
    const n = Object.keys(wanted.filters).length;
    byId("num-filters").textContent = n ? `(${n} set)` : "";
    const isEmpty = !n && !wanted.text;
    history.replaceState(null, "", isEmpty ? "#" : `#${encodeURIComponent(JSON.stringify(wanted))}`);
  }

  async function search({ isNextPage = false } = {}) {
    searching?.abort();
    const mine = searching = new AbortController();
    if (!isNextPage) {
      found = [];
      byId("list").replaceChildren();
    }
    const after = found.length ? found[found.length - 1].number : -1;
    byId("more-documents").hidden = true;
    byId("stop").hidden = false;
    byId("results").setAttribute("aria-busy", "true");
    let end = null;
    try {
      for await (const one of answers("search", { ...query(), after }, mine.signal)) {
        if (mine !== searching) return;
        if (one.documents) one.documents.forEach(append);
        else if (one.of) byId("progress").textContent = `Searched ${number(one.progress)} of ${number(one.of)} documents …`;
        else if ("matching" in one) end = one;
      }
      if (mine === searching) finish(end);
    } catch (error) {
      if (mine === searching) finish(null, mine.signal.aborted ? "Stopped." : `Failed: ${error.message}`);
    }
  }

  function finish(end, message = "") {
    byId("progress").textContent = "";
    byId("stop").hidden = true;
    byId("results").removeAttribute("aria-busy");
    byId("state").textContent = end ? summary(end) : message || "The command ended its answer early.";
    byId("more-documents").hidden = end === null || end.is_complete;
  }

  function summary(end) {
    const isFiltered = Object.keys(wanted.filters).length > 0;
    if (!end.matching) return "No document meets the filters.";
    if (!wanted.text && isFiltered) return `${number(end.matching)} of ${counted(run.documents, "document")} meet the filters`;
    if (!wanted.text) return counted(end.matching, "document");
    const part = end.is_complete ? "all" : `${number(end.searched)} of the`;
    return `${counted(found.length, "document")} with this text; searched ${part} ${number(end.matching)}${isFiltered ? " that meet the filters" : ""}`;
  }

  function title(one) {
    return one.values.url || one.id || `Document ${number(one.number)}`;
  }

  function append(one) {
    const place = found.push(one) - 1;
    const name = title(one);
    const open = element("button", { type: "button" }, element("bdi", {}, name));
    open.addEventListener("click", () => show(place));
    const chips = Object.entries(one.values)
      .filter(([, value]) => value !== null && !(typeof value === "string" && value.length > 3 && name.includes(value)))
      .map(([column, value]) => element("li", {}, `${column} `, element("b", {}, element("bdi", {}, shown(value)))));
    if ("tokens" in one) chips.unshift(element("li", {}, element("b", {}, counted(one.tokens, "token"))));
    const item = element("li", {}, element("h2", {}, open), element("ul", { className: "chips" }, ...chips));
    if (one.snippet) {
      const [before, hit, after] = one.snippet;
      item.append(element("p", { className: "snippet", dir: "auto" }, before, ...(hit ? [element("mark", {}, hit)] : []), after));
    }
    byId("list").append(item);
  }

  function shown(value) {
    return typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(4))) : String(value);
  }

  // filters

  function set(column, part) {
    const filter = { ...wanted.filters[column], ...part };
    for (const [key, value] of Object.entries(filter)) {
      if (value === null || value === "" || value.length === 0) delete filter[key];
    }
    if (Object.keys(filter).length) wanted.filters[column] = filter;
    else delete wanted.filters[column];
    changed();
  }

  function containing(column) {
    const id = `filter-${column.name}`;
    const input = element("input", { type: "search", id, autocomplete: "off", spellcheck: false, maxLength: 1000 });
    input.value = wanted.filters[column.name]?.contains ?? "";
    input.placeholder = "contains, or =exactly";
    input.addEventListener("input", () => set(column.name, { contains: input.value }));
    return element("div", { className: "field" }, element("label", { htmlFor: id }, element("bdi", {}, column.shown)), input);
  }

  function withSuggestions(field, values) {
    const input = field.querySelector("input");
    const list = element("datalist", { id: `${input.id}-values` });
    list.append(...values.filter(([value, text]) => value === text && value).map(([value]) => element("option", { value })));
    input.setAttribute("list", list.id);
    field.append(list);
  }

  function range(column) {
    const isDate = column.type === "date";
    const inputs = [["low", "from"], ["high", "to"]].map(([key, name]) => {
      const input = element("input", { type: isDate ? "date" : "number", step: "any", "aria-label": `${column.shown} ${name}` });
      input.value = wanted.filters[column.name]?.[key] ?? "";
      input.placeholder = name;
      input.addEventListener("input", () => {
        const value = input.value === "" ? null : isDate ? input.value : input.valueAsNumber;
        set(column.name, { [key]: value });
      });
      return input;
    });
    return element("fieldset", {}, element("legend", {}, element("bdi", {}, column.shown)), element("div", { className: isDate ? "range days" : "range" }, ...inputs));
  }

  function withHistogram(field, values) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const most = Math.max(...values.bins, 1);
    const [low, high] = [shown(values.low), shown(values.high)];
    const label = `Histogram from ${low} to ${high}; most in an interval: ${number(most)}`;
    for (const [name, value] of [["class", "histogram"], ["viewBox", `0 0 ${values.bins.length} 20`], ["preserveAspectRatio", "none"], ["role", "img"], ["aria-label", label]]) svg.setAttribute(name, value);
    values.bins.forEach((n, place) => {
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const height = n ? Math.max(20 * n / most, 0.6) : 0;
      for (const [name, value] of [["x", place + 0.1], ["y", 20 - height], ["width", 0.8], ["height", height]]) bar.setAttribute(name, value);
      svg.append(bar);
    });
    field.querySelector("legend").after(svg);
    const [first, last] = field.querySelectorAll("input");
    [first.placeholder, last.placeholder] = [low, high];
  }

  function choices(column, values) {
    const all = [...values.values];
    if (all.every(([value]) => typeof value === "number")) all.sort(([one], [other]) => one - other);
    if (values.documents > values.known) all.push([null, "no value", values.documents - values.known]);
    const chosen = new Set(wanted.filters[column.name]?.any_of ?? []);
    const boxes = all.map(([value, text, n]) => {
      const box = element("input", { type: "checkbox", checked: chosen.has(value) });
      box.addEventListener("change", () => {
        if (box.checked) chosen.add(value);
        else chosen.delete(value);
        set(column.name, { any_of: [...chosen] });
      });
      const name = text === "" ? "(empty)" : String(text);
      return element("label", {}, box, element("bdi", {}, name), element("span", { className: "n" }, number(n)));
    });
    const list = element("div", { className: "choices" }, ...boxes);
    return element("fieldset", {}, element("legend", {}, element("bdi", {}, column.shown)), list);
  }

  function control(column) {
    return column.type === "string" || column.type === "boolean" ? containing(column) : range(column);
  }

  async function addControls() {
    const places = run.columns.filter((column) => column.type !== "other").map((column) => [column, control(column)]);
    byId("controls").replaceChildren(...places.map(([, field]) => field));
    for (const [column, field] of places) {
      if (!field.isConnected) return;
      let values;
      try {
        values = await answer("values", { column: column.name });
      } catch (error) {
        field.append(element("p", { className: "note" }, `Its values are not known: ${error.message}`));
        continue;
      }
      const isAlike = values.distinct === 1 && values.documents === values.known && !(column.name in wanted.filters);
      if (isAlike) {
        const all = `${shown(values.values?.[0]?.[1] ?? values.low)} in all documents`;
        field.replaceWith(element("div", { className: "field" }, element("label", {}, column.shown), element("p", { className: "note" }, element("bdi", {}, all))));
      } else if (values.kind === "classes" && column.type !== "date" && field.contains(document.activeElement) === false) {
        field.replaceWith(choices(column, values));
      } else if (values.bins) withHistogram(field, values);
      else if (values.kind === "names" && column.type === "string") withSuggestions(field, values.values);
    }
  }

  // one document

  let shownPlace = -1;
  let sequencePlace = 0;

  async function show(place) {
    shownPlace = place;
    const one = found[place];
    const isMine = () => shownPlace === place;
    byId("document-title").replaceChildren(element("bdi", {}, title(one)));
    byId("document-place").textContent = `${number(place + 1)} of ${number(found.length)} shown`;
    byId("previous").disabled = place === 0;
    byId("next").disabled = place === found.length - 1;
    byId("annotations").replaceChildren();
    byId("document-text").replaceChildren();
    byId("more-text").hidden = true;
    byId("text-part").hidden = byId("sequence-part").hidden = !run.has_texts;
    byId("sequence-part").hidden ||= !run.layouts.length;
    if (!byId("document").open) byId("document").showModal();
    byId("document-content").scrollTop = 0;
    try {
      const document = await answer("document", { number: one.number });
      if (!isMine()) return;
      byId("annotations").replaceChildren(annotations(document));
      if (!run.has_texts) return;
      await moreText(place, 0);
      sequencePlace = 0;
      if (isMine() && run.layouts.length) await showSequence();
    } catch (error) {
      if (isMine()) byId("annotations").append(element("p", { className: "note", role: "alert" }, `Failed: ${error.message}`));
    }
  }

  function annotations(one) {
    const rows = one.annotations.map(({ column, annotator, value }) => [column, value === null ? "no value" : shown(value), annotator]);
    if ("tokens" in one) rows.push(["tokens", number(one.tokens), ""], ["id", one.id ?? "", ""]);
    rows.push(["document", `${number(one.number)}: row ${number(one.row)} of ${one.partition}`, ""]);
    return table("Annotations", ["column", "value", "annotator"], rows);
  }

  function table(caption, headings, rows) {
    const cells = (row) => row.map((cell, place) => place ? element("td", {}, element("bdi", {}, String(cell))) : element("th", { scope: "row" }, element("bdi", {}, String(cell))));
    const head = element("tr", {}, ...headings.map((name) => element("th", { scope: "col" }, name)));
    const body = rows.map((row) => element("tr", {}, ...cells(row)));
    const made = element("table", {}, element("caption", { className: "hidden" }, caption), element("thead", {}, head), element("tbody", {}, ...body));
    return element("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": caption }, made);
  }

  async function moreText(place, first) {
    const one = found[place];
    let part;
    try {
      part = await answer("text", { number: one.number, first });
    } catch (error) {
      part = { text: ` [Failed: ${error.message}]`, next: 0, characters: 1 };
    }
    if (shownPlace !== place) return;
    byId("document-text").append(part.text);
    if (!part.characters) byId("document-text").append("(empty)");
    const left = part.characters - part.next;
    byId("more-text").hidden = left <= 0;
    byId("more-text").textContent = `Show more (${number(left)} more characters)`;
    byId("more-text").onclick = () => moreText(place, part.next);
  }

  async function showSequence() {
    const place = shownPlace;
    const one = found[place];
    const layout = byId("layout").value;
    const isMine = () => shownPlace === place && byId("layout").value === layout;
    byId("sequence").replaceChildren();
    byId("parts").replaceChildren();
    byId("previous-sequence").disabled = byId("next-sequence").disabled = true;
    let sequence;
    try {
      sequence = await answer("sequence", { number: one.number, layout, place: sequencePlace });
    } catch (error) {
      if (isMine()) byId("sequence-state").textContent = `Failed: ${error.message}`;
      return;
    }
    if (!isMine()) return;
    byId("previous-sequence").disabled = sequencePlace === 0;
    byId("next-sequence").disabled = sequencePlace >= sequence.sequences - 1;
    if (!sequence.sequences) {
      byId("sequence-state").textContent = "This layout has no sequence with a part of the document: its text is empty.";
      return;
    }
    byId("sequence-state").textContent = `Sequence ${number(sequence.sequence)} of ${layout}: ${number(sequence.place + 1)} of ${number(sequence.sequences)} with a part of this document. Dimmed with a dotted line: loss weight 0.`;
    byId("sequence").append(...sequence.runs.flatMap((part) => spans(part, one.number)));
    if (sequence.tokens_left) byId("sequence").append(` [${number(sequence.tokens_left)} more tokens]`);
    const rows = sequence.runs.map((part) => [part.role, number(part.tokens), part.weight, part.document ?? "", text(part)]);
    byId("parts").append(table("Parts", ["role", "tokens", "loss weight", "document", "text"], rows));
  }

  function text(part) {
    return part.role === "pad" ? `[${part.tokens} × pad]` : part.text;
  }

  function spans(part, own) {
    const isOwn = part.document === own;
    const kind = part.role === "text" ? "" : part.role === "metadata" ? "meta" : "special";
    const className = `run role-${part.role} ${kind} ${part.weight ? "" : "masked"} ${isOwn ? "own" : ""}`;
    const of = part.document === null ? "" : `, document ${number(part.document)}`;
    const label = `${part.role}, loss weight ${part.weight}${of}, ${counted(part.tokens, "token")}`;
    const span = element("span", { className, title: label }, element("bdi", {}, text(part)));
    if (part.role !== "bos") return [span];
    const start = element("span", { className: isOwn ? "start own" : "start" }, isOwn ? "this document" : `document ${number(part.document)}`);
    return [start, span];
  }

  // begin

  function restore() {
    try {
      const kept = JSON.parse(decodeURIComponent(location.hash.slice(1)));
      wanted = { text: String(kept.text ?? ""), filters: Object(kept.filters) };
    } catch {
      wanted = { text: "", filters: {} };
    }
    byId("text").value = wanted.text;
  }

  async function begin() {
    restore();
    byId("more").open = matchMedia("(min-width: 56rem)").matches;
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("filters").addEventListener("reset", () => {
      wanted = { text: "", filters: {} };
      addControls();
      changed();
    });
    byId("text").addEventListener("input", () => {
      wanted.text = byId("text").value;
      changed();
    });
    byId("more-documents").addEventListener("click", () => search({ isNextPage: true }));
    byId("stop").addEventListener("click", () => searching?.abort());
    byId("close").addEventListener("click", () => byId("document").close());
    byId("document").addEventListener("close", () => { shownPlace = -1; });
    byId("previous").addEventListener("click", () => show(shownPlace - 1));
    byId("next").addEventListener("click", () => show(shownPlace + 1));
    byId("layout").addEventListener("change", () => { sequencePlace = 0; showSequence(); });
    byId("previous-sequence").addEventListener("click", () => { sequencePlace -= 1; showSequence(); });
    byId("next-sequence").addEventListener("click", () => { sequencePlace += 1; showSequence(); });
    try {
      run = await answer("columns", {});
    } catch (error) {
      byId("state").textContent = `Failed: ${error.message}`;
      return;
    }
    byId("run").textContent = run.run;
    document.title = `${run.run} – Colophon`;
    byId("search-field").hidden = !run.has_texts;
    byId("reason").hidden = run.has_texts;
    byId("reason").textContent = `No texts are shown: ${run.reason}`;
    byId("layout").append(...run.layouts.map((name) => element("option", { value: name }, name)));
    byId("legend").append(...run.roles.map((role) => element("li", {}, element("i", { className: `role-${role}` }), role)));
    await search();
    await addControls();
  }

  begin();
})();
