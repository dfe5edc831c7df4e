// The worker of the match page: it opens the page without a connection. The service writes KEPT above: the page, the
// path of the files that it is made of, and the files. Answers of the service are none of them.

const NAME = `kickserve ${KEPT.static}`; // other files have another path
const PATIENCE = 2500; // milliseconds that a slow connection may take before the kept page opens

addEventListener("install", (event) => event.waitUntil(keepAll()));
addEventListener("activate", (event) => event.waitUntil(dropOthers()));
addEventListener("fetch", (event) => {
  const { pathname } = new URL(event.request.url);
  if (event.request.mode === "navigate" && pathname === KEPT.page) event.respondWith(openPage(event));
  else if (pathname.startsWith(`${KEPT.static}/`)) event.respondWith(caches.match(event.request).then((kept) => kept ?? fetch(event.request)));
});

async function keepAll() {
  const cache = await caches.open(NAME);
  await cache.addAll([KEPT.page, ...KEPT.files]);
  await skipWaiting(); // open pages have loaded all that they need
}

async function dropOthers() {
  const ours = NAME.slice(0, NAME.lastIndexOf("/"));
  const names = await caches.keys();
  await Promise.all(names.filter((each) => each.startsWith(ours) && each !== NAME).map((each) => caches.delete(each)));
  await clients.claim();
}

async function openPage(event) {
  const asked = fetch(event.request).catch(() => null);
  event.waitUntil(asked.then(keepPage));
  const found = await Promise.race([asked, new Promise((done) => setTimeout(done, PATIENCE))]);
  if (found?.ok) return found;
  return (await caches.match(KEPT.page)) ?? (await asked) ?? Response.error();
}

/** Keep the page anew, in the language that it has now; one of other files waits for the worker that keeps those. */
async function keepPage(response) {
  if (!response?.ok) return;
  const copy = response.clone();
  if ((await response.clone().text()).includes(KEPT.static)) await (await caches.open(NAME)).put(KEPT.page, copy);
}
