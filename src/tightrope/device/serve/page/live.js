// States that the server keeps up to date: a snapshot, then JSON Patches (RFC 6902) with sequence numbers.

function patched(state, operations) {
  const root = { "": state };
  const find = (pointer) => {
    const keys = pointer.split("/").map((key) => key.replace(/~1/g, "/").replace(/~0/g, "~"));
    const last = keys.pop();
    return [keys.length ? keys.reduce((at, key) => at[key], root) : root, last];
  };
  const take = (pointer) => {
    const [at, key] = find(pointer);
    if (Array.isArray(at)) return at.splice(Number(key), 1)[0];
    const value = at[key];
    delete at[key];
    return value;
  };
  const put = (pointer, value) => {
    const [at, key] = find(pointer);
    if (Array.isArray(at)) at.splice(key === "-" ? at.length : Number(key), 0, value);
    else at[key] = value;
  };
  for (const step of operations) {
    if (step.op === "remove") take(step.path);
    else if (step.op === "add") put(step.path, step.value);
    else if (step.op === "move") put(step.path, take(step.from));
    else if (step.op === "replace") { const [at, key] = find(step.path); at[key] = step.value; }
    else throw new Error(`unknown operation ${step.op}`);
  }
  return root[""];
}

class Mirror {
  constructor(show, resync) {
    this.show = show;
    this.resync = resync;
    this.seq = null;
    this.state = null;
  }

  read(text) {
    const message = JSON.parse(text);
    if ("snapshot" in message) this.state = message.snapshot;
    else if (message.base !== this.seq) return this.resync();
    else this.state = patched(this.state, message.patch);
    this.seq = message.seq;
    return this.show(this.state);
  }
}

// Server-sent events. `tell` hears whether the stream is up.
function followEvents(path, show, tell) {
  let source;
  const open = () => {
    const mirror = new Mirror(show, () => { source.close(); open(); });
    source = new EventSource(path);
    source.onopen = () => tell(true);
    source.onmessage = (event) => mirror.read(event.data);
    source.onerror = () => {
      tell(false);
      if (source.readyState === EventSource.CLOSED) setTimeout(open, 3000); // refused: the browser itself does not try again
    };
  };
  open();
}

// A WebSocket that is opened when the first question is asked, and again when it breaks.
function followSocket(path, show) {
  let socket = null, asked = null, pause = 500;
  const ask = () => { if (socket.readyState === WebSocket.OPEN && asked) socket.send(JSON.stringify(asked)); };
  const open = () => {
    const mirror = new Mirror(show, () => socket.send(JSON.stringify({ resync: true })));
    socket = new WebSocket(new URL(path, location.href.replace(/^http/, "ws")));
    socket.onopen = () => { pause = 500; ask(); };
    socket.onmessage = (event) => mirror.read(event.data);
    socket.onclose = () => { setTimeout(open, pause); pause = Math.min(2 * pause, 8000); };
  };
  return (question) => {
    asked = question;
    if (socket) ask();
    else open();
  };
}
