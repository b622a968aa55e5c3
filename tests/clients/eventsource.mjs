// Reads a stream with the npm package eventsource, and prints all that it sees as JSON lists:
// ["open", the Last-Event-ID it was asked with], ["error", …], [type, data, lastEventId].

import { EventSource } from "eventsource";

let lastEventIdSent = null;
const source = new EventSource(process.argv[2], {
  fetch: (url, init) => {
    lastEventIdSent = init.headers["Last-Event-ID"] ?? null;
    return fetch(url, init);
  },
});
const print = (value) => console.log(JSON.stringify(value));

source.addEventListener("open", () => print(["open", lastEventIdSent]));
source.addEventListener("error", () => print(["error", lastEventIdSent]));
for (const type of ["message", "update", "stream-reset"]) {
  source.addEventListener(type, (event) => print([type, event.data, event.lastEventId]));
}
