// Waits until the job that `req` asks for has ended, asking with the same URL and headers; gives up after PATIENCE.
const PATIENCE = 20000;
const PAUSE = 25;
const UNDER_WAY = ["PENDING", "PROCESSING"];

module.exports = async function untilEnded(bru, req) {
  const end = Date.now() + PATIENCE;
  let job;
  do {
    const answer = await bru.sendRequest({
      method: "GET",
      url: bru.interpolate(req.getUrl()),
      headers: JSON.parse(bru.interpolate(JSON.stringify(req.getHeaders()))),
    });
    job = answer.data;
    if (!UNDER_WAY.includes(job.status)) {
      return;
    }
    await bru.sleep(PAUSE);
  } while (Date.now() < end);
  throw new Error(`the job is still ${job.status} after ${PATIENCE / 1000} seconds`);
};
