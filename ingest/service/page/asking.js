// Asking the service

const SILENT = "the service does not answer. It has stopped, or the connection is down.";

async function ask(path, { method = "GET", json } = {}) {
  const options = { method, signal: AbortSignal.timeout(PATIENCE) };
  if (json !== undefined) Object.assign(options, { body: JSON.stringify(json), headers: { "Content-Type": "application/json" } });
  let response;
  let text;
  try {
    response = await fetch(`api/${path}`, options);
    text = await response.text();
  } catch (error) {
    throw new Refusal(error.name === "TimeoutError" ? `no answer within ${PATIENCE / 1000} s.` : SILENT);
  }
  return answer(response.status, text, response.headers.get("Retry-After"));
}

function answer(status, text, after) {
  let said = null;
  try {
    said = text ? JSON.parse(text) : null;
  } catch {
    if (status < 400) throw new Refusal("the answer is not the service’s: something in between answered.", { status });
  }
  if (status < 400) return said;
  if (status === 401) showLogin();
  const why = said?.error ?? `the service answered with status ${status}.`;
  throw new Refusal(status === 429 && after ? `${why} Try again in ${duration(Number(after))}.` : why, { status });
}
