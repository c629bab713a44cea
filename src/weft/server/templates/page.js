"use strict";
// The page asks the public routes only: what it does can be done with curl, and is shown so.

const WORDS = {
  en: {},
  zh: {
    skip: "跳到内容", run: "模型", pages: "页面", routes: "接口", write: "写作", prompt: "从这段文字写下去", tokens: "最多词元数",
    temperature: "温度", seed: "随机种子", go: "续写", look: "下一个可能是什么？", stop: "停止",
    may: "模型认为的下一个词元；选一个继续写", chat: "对话", say: "你说", send: "发送", anew: "重新开始", row: "一行数据",
    predict: "预测", recommend: "推荐", user: "训练数据里的用户", history: "或一段历史：条目，用逗号分隔",
    near: "两段文字有多接近", first: "一段文字", second: "另一段", compare: "比较", others: "其他全部", request: "请求",
    copy: "复制", copied: "已复制", answer: "结果", why: "为什么", explaining: "正在解释……", supports: "支持", opposes: "反对",
    cosine: "余弦相似度", nothing: "没有可推荐的", you: "你", model: "模型", left: "（不填）", declined: "模型不作答",
    unreliable: "无法连接服务器", empty: "还没有填写任何内容：请至少填写一项。",
  },
};
Object.assign(WORDS.en, { others: "all others", request: "The request", copy: "Copy", copied: "Copied", answer: "Answer",
  why: "Why", explaining: "Explaining …", supports: "for", opposes: "against", cosine: "cosine", you: "You", model: "Model",
  nothing: "nothing to recommend", left: "(left out)", declined: "the model declines", unreliable: "The server cannot be reached",
  empty: "Nothing was given: fill in one field at least." });
for (const node of document.querySelectorAll("[data-t]")) WORDS.en[node.dataset.t] = node.textContent;
WORDS.en.pages = "Pages";

const $ = (selector, root = document) => root.querySelector(selector);
const make = (tag, values = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), values);
  node.append(...children);
  return node;
};
let language = (navigator.language || "en").startsWith("zh") ? "zh" : "en";
const say = (key) => WORDS[language][key];
const state = { runs: [], run: null, ids: null, turns: [], stop: null };
const percent = (p) => (100 * p).toFixed(p < 0.001 ? 3 : 1) + " %";
const seen = (text) => text.replace(/ /g, "␣").replace(/\n/g, "↵").replace(/\t/g, "⇥") || "∅";

// ---- asking

async function ask(section, path, body, signal) {
  body = { model: state.run.id, ...body };
  show(section, path, body);
  $("#problem").hidden = true;
  let answer;
  try {
    answer = await fetch(path, { method: "POST", signal, headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(say("unreliable"));
  }
  if (!answer.ok) throw new Error((await answer.json()).error.message);
  return answer;
}

function tell(error) {
  if (error.name === "AbortError") return;
  const problem = $("#problem");
  problem.textContent = error.message;
  problem.hidden = false;
  problem.scrollIntoView({ block: "nearest" });
}

async function* pieces(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const events = rest.split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (event === "data: [DONE]") return;
      const said = JSON.parse(event.slice(6));
      if (said.error) throw new Error(said.error.message);
      if (said.choices.length) yield said.choices[0];
    }
  }
}

async function streaming(form, work) {
  const button = $(".stop", form);
  const control = new AbortController();
  button.onclick = () => control.abort();
  button.hidden = false;
  for (const other of form.querySelectorAll("button:not(.stop)")) other.disabled = true;
  try {
    await work(control.signal);
  } catch (error) {
    tell(error);
  } finally {
    button.hidden = true;
    for (const other of form.querySelectorAll("button:not(.stop)")) other.disabled = false;
  }
}

function show(section, path, body) {
  const short = JSON.parse(JSON.stringify(body, (key, value) =>
    typeof value === "string" && value.startsWith("data:") && value.length > 80 ? value.slice(0, 40) + "..." : value));
  const address = location.origin + path;
  const curl = (asked) => `curl ${address} \\\n  -H 'content-type: application/json' \\\n  -d '` +
    JSON.stringify(asked, null, 1).replace(/'/g, "'\\''") + "'";
  const python = (asked) => "import json, urllib.request\n\nbody = " + pythonic(asked, "") + "\n" +
    `request = urllib.request.Request("${address}", json.dumps(body).encode(), {"content-type": "application/json"})\n` +
    "print(urllib.request.urlopen(request).read().decode())";
  const open = $(".request", section).open;
  const shown = [["curl", curl], ["Python", python]].map(([name, code]) => {
    const copy = make("button", { type: "button", textContent: say("copy"), onclick: async () => {
      await navigator.clipboard.writeText(code(body)); // whole, where what is shown cuts pictures short
      copy.textContent = say("copied");
    } });
    const pre = make("pre", { tabIndex: 0, textContent: code(short) });
    pre.setAttribute("aria-label", `${name}: ${$("h2", section).textContent}`);
    pre.setAttribute("role", "region");
    return make("div", {}, make("h3", { textContent: name + " " }), pre, copy);
  });
  $(".request", section).replaceChildren(make("summary", { textContent: say("request") }), ...shown);
  $(".request", section).open = open;
}

function pythonic(value, indent) {
  const more = indent + "    ";
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return "[" + value.map((v) => pythonic(v, indent)).join(", ") + "]";
  if (typeof value !== "object") return JSON.stringify(value);
  return "{\n" + Object.entries(value).map(([k, v]) => `${more}${JSON.stringify(k)}: ${pythonic(v, more)},\n`).join("") + indent + "}";
}

// ---- bars

function bar(name, probability, most, onclick) {
  const fill = make("i");
  fill.style.width = 100 * probability / (most || 1) + "%";
  const parts = [make("code", { textContent: name }), make("span", { textContent: percent(probability) })];
  const face = onclick ? make("button", { type: "button", onclick }, ...parts) : make("span", {}, ...parts);
  return make("li", {}, fill, face);
}

// ---- writing

const write = $("#write");
write.elements.prompt.addEventListener("input", () => { state.ids = null; });

async function look(prompt, focus) {
  const section = write.closest("section");
  try {
    const found = await (await ask(section, "/next", { prompt, count: 10 })).json();
    state.ids = Array.isArray(prompt) ? found.ids : null; // a token may be half a letter, which no text can say
    if (state.ids) write.elements.prompt.value = found.text;
    const most = Math.max(...found.tokens.map((t) => t.probability), found.rest);
    const bars = found.tokens.map((t) => bar(seen(t.text), t.probability, most, () => look([...found.ids, t.id], true)));
    $("#next ol").replaceChildren(...bars, bar(say("others"), found.rest, most));
    $("#next").hidden = false;
    if (focus) $("#next button").focus();
  } catch (error) { tell(error); }
}

$("#look").onclick = () => look(state.ids || write.elements.prompt.value);
write.onsubmit = (event) => {
  event.preventDefault();
  const { prompt, max_tokens, temperature, seed } = write.elements;
  $("#next").hidden = true;
  streaming(write, async (signal) => {
    const body = { prompt: state.ids || prompt.value, max_tokens: +max_tokens.value, temperature: +temperature.value,
      seed: +seed.value, stream: true };
    const answer = await ask(write.closest("section"), "/v1/completions", body, signal);
    const written = make("span");
    $("#written").replaceChildren(make("span", { className: "given", textContent: prompt.value }), written);
    for await (const choice of pieces(answer)) written.append(choice.text);
  });
};

// ---- chat

const chat = $("#chat");
function turn(role, content) {
  const text = make("span", { textContent: content });
  const node = make("li", { className: role }, make("strong", { textContent: say(role === "user" ? "you" : "model") + ": " }), text);
  $("#turns").append(node);
  return text;
}
chat.onsubmit = (event) => {
  event.preventDefault();
  const content = chat.elements.say.value;
  streaming(chat, async (signal) => {
    const messages = [...state.turns, { role: "user", content }];
    const answer = await ask(chat.closest("section"), "/v1/chat/completions", { messages, stream: true }, signal);
    turn("user", content);
    chat.elements.say.value = "";
    const text = turn("assistant", "");
    state.turns = messages;
    try {
      for await (const choice of pieces(answer)) text.append(choice.delta.content || "");
    } finally {
      state.turns = [...messages, { role: "assistant", content: text.textContent }];
    }
  });
};
chat.elements.say.onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); chat.requestSubmit(); }
};
$("#anew").onclick = () => { state.turns = []; $("#turns").replaceChildren(); chat.elements.say.focus(); };

// ---- a row

function field(name, column) {
  const label = make("label", {}, make("span", { textContent: name }));
  let input;
  if (column.type === "text") { input = make("textarea", { rows: 3 }); label.className = "wide-field"; }
  else if (column.type === "category" && column.values) {
    input = make("input", { autocomplete: "off" });
    const list = make("datalist", { id: `values-${name}` }, ...column.values.map((v) => make("option", { value: v })));
    input.setAttribute("list", list.id);
    label.append(list);
  } else if (column.type === "image") input = make("input", { type: "file", accept: "image/*" });
  else input = make("input", column.type === "number" ? { type: "number", step: "any" } : { type: "text" });
  input.name = name;
  if (column.type === "time") input.placeholder = "2026-01-31 12:00";
  label.append(input);
  if (column.type === "image") {
    const preview = make("img", { alt: "", hidden: true });
    label.append(preview);
    input.onchange = () => {
      const reader = new FileReader();
      reader.onload = () => { input.dataset.url = preview.src = reader.result; preview.hidden = false; };
      if (input.files[0]) reader.readAsDataURL(input.files[0]);
      else { delete input.dataset.url; preview.hidden = true; }
    };
  }
  return label;
}

function rowOf(form) {
  const found = {};
  for (const input of form.querySelectorAll("input, textarea"))
    found[input.name] = (input.type === "file" ? input.dataset.url : input.value) || null;
  return found;
}

const row = $("#row");
row.onsubmit = async (event) => {
  event.preventDefault();
  const section = row.closest("section"), rows = [rowOf(row)], able = state.run.can.includes("explain");
  $("#why").replaceChildren();
  $("#predicted").replaceChildren();
  if (Object.values(rows[0]).every((value) => value === null)) return tell(new Error(say("empty")));
  try {
    const { predictions } = await (await ask(section, "/predict", { rows })).json();
    $("#predicted").replaceChildren(...answered(predictions[0]));
    if (!able || predictions[0].error) return;
    $("#why").textContent = say("explaining");
    const { explanations } = await (await ask(section, "/explain", { rows })).json();
    $("#why").replaceChildren(...explained(explanations[0]));
  } catch (error) { $("#why").replaceChildren(); tell(error); }
};

function answered(found) {
  if (found.error) return [make("p", { textContent: found.error })];
  const shown = (value) => value === null ? "–" : typeof value === "number" ? String(+value.toPrecision(5)) : Array.isArray(value) ? value.join(", ") : String(value);
  const prefix = "probability of ";
  const bars = Object.entries(found).filter(([k, v]) => k.startsWith(prefix) && v !== null).sort((a, b) => b[1] - a[1]);
  const rest = Object.entries(found).filter(([k]) => !k.startsWith(prefix) && k !== "probability" && k !== "declined");
  const list = make("dl", {}, ...rest.flatMap(([k, v]) => [make("dt", { textContent: k === "prediction" ? state.run.target || say("answer") : k }), make("dd", { textContent: found.declined ? say("declined") : shown(v) })]));
  return [make("h3", { textContent: say("answer") }), list,
    make("ol", { className: "bars" }, ...bars.slice(0, 10).map(([k, p]) => bar(k.slice(prefix.length), p, 1)))];
}

function explained(why) {
  const most = Math.max(...why.players.map((p) => Math.abs(p.share)), 1e-9);
  const marked = (text, share) => {
    const node = make("mark", { textContent: text, className: share > 0 ? "for" : "against" });
    node.style.setProperty("--much", (0.65 * Math.abs(share) / most).toFixed(3));
    node.title = `${share > 0 ? say("supports") : say("opposes")} ${Math.abs(share).toFixed(3)}`;
    return node;
  };
  const texts = Object.entries(why.texts || {}).map(([column, text]) => {
    const letters = [...text], parts = [];
    let at = 0;
    for (const p of why.players.filter((p) => p.column === column && p.start !== null).sort((a, b) => a.start - b.start)) {
      parts.push(letters.slice(at, p.start).join(""), marked(letters.slice(p.start, p.end).join(""), p.share));
      at = p.end;
    }
    return make("p", { className: "text" }, make("span", { className: "given", textContent: column + ": " }), ...parts, letters.slice(at).join(""));
  });
  const cells = why.players.filter((p) => p.start === null).sort((a, b) => Math.abs(b.share) - Math.abs(a.share));
  const others = cells.map((p) => make("li", {}, marked(`${p.column} ${p.shown}`, p.share), ` ${p.share > 0 ? "+" : "−"}${Math.abs(p.share).toFixed(3)}`));
  return [make("h3", { textContent: say("why") }), ...why.told[language].map((line) => make("p", { textContent: line })), ...texts, make("ul", {}, ...others)];
}

// ---- recommendations and vectors

const recommend = $("#recommend");
recommend.onsubmit = async (event) => {
  event.preventDefault();
  const { user, history } = recommend.elements;
  const body = user.value.trim() ? { user: user.value.trim() } : { history: history.value.split(/[,，]/).map((i) => i.trim()).filter(Boolean) };
  try {
    const { items } = await (await ask(recommend.closest("section"), "/recommend", body)).json();
    const named = (i) => i.title && i.title !== i.item ? `${i.title} (${i.item})` : i.item;
    $("#items").replaceChildren(...(items.length ? items.map((i) => bar(named(i), i.score, items[0].score)) : [make("li", { textContent: say("nothing") })]));
  } catch (error) { tell(error); }
};

const near = $("#near");
near.onsubmit = async (event) => {
  event.preventDefault();
  const input = [near.elements.first.value, near.elements.second.value];
  try {
    const { data } = await (await ask(near.closest("section"), "/v1/embeddings", { input })).json();
    const cosine = data[0].embedding.reduce((sum, x, i) => sum + x * data[1].embedding[i], 0);
    $("#cosine").textContent = `${say("cosine")} ${cosine.toFixed(4)}`;
  } catch (error) { tell(error); }
};

// ---- the whole

function choose(id) {
  state.run = state.runs.find((run) => run.id === id);
  state.ids = null;
  state.turns = [];
  for (const node of document.querySelectorAll("#turns, #predicted, #why, #items, #cosine, #written, .request")) node.replaceChildren();
  for (const node of document.querySelectorAll("[data-can]")) node.hidden = !node.dataset.can.split(" ").some((can) => state.run.can.includes(can));
  $("#next").hidden = true;
  if (!Object.keys(state.run.columns).length) row.closest("section").hidden = true;
  $("#fields").replaceChildren(...Object.entries(state.run.columns).map(([name, column]) => field(name, column)));
}

function speak(chosen) {
  language = chosen;
  document.documentElement.lang = chosen === "zh" ? "zh-Hans" : "en";
  for (const node of document.querySelectorAll("[data-t]")) node.textContent = say(node.dataset.t);
  for (const node of document.querySelectorAll("[data-l]")) node.setAttribute("aria-label", say(node.dataset.l));
  Object.assign($("#language"), { textContent: chosen === "zh" ? "English" : "中文", lang: chosen === "zh" ? "en" : "zh" });
}

$("#language").onclick = () => speak(language === "zh" ? "en" : "zh");
$("#run").onchange = () => choose($("#run").value);
(async () => {
  speak(language);
  try {
    state.runs = (await (await fetch("/v1/models")).json()).data;
    $("#run").replaceChildren(...state.runs.map((run) => make("option", { value: run.id, textContent: run.id })));
    choose(state.runs[0].id);
  } catch { tell(new Error(say("unreliable"))); }
})();
