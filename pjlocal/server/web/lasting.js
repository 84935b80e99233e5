/** An answer's events over a connection that may be lost for some seconds. */

import { ask, events, isLost, json } from "./api.js";

const TRIES = 12; // to reach the server again, twice a second

/** The events of an answer.  Where the connection is lost, the rest of them follow once the server is reached again: it may
 * be the network that was away for a moment.
 *
 * turn, stopping: the turn, and what stops it.
 * which: returns the number of its chat; null once that is no longer open, or while it has none. */
export async function* lasting(stream, { turn, stopping }, which) {
  let [n, hasHead] = [0, false];
  for (;;) {
    let seen = 0;
    try {
      for await (const data of stream) {
        const isKnown = data.event ? seen++ < n : data.head && hasHead;
        if (isKnown) continue;
        if (data.event) n++;
        if (data.head) hasHead = true;
        yield data;
      }
      return;
    } catch (error) {
      if (!isLost(error) || which() === null) throw error;
      yield { lost: true };
      stream = await again(turn, stopping, which, error);
    }
  }
}

/** The events of an answer from its beginning; throws `lost` where they are not to be had. */
async function again(turn, stopping, which, lost) {
  for (let tries = 0; tries < TRIES; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 500));
    stopping.signal.throwIfAborted();
    if (which() === null) throw lost;
    try {
      const response = await ask(`api/chats/${which()}/answer`, { signal: stopping.signal });
      if (response.status === 200) return events(response);
      if (turn.id === null) throw lost;
      return saved(await json(`api/chats/${which()}/turns/${turn.id}`));
    } catch (error) {
      if (!isLost(error) || error === lost) throw error;
    }
  }
  throw lost;
}

/** A saved answer as a stream. */
async function* saved({ settings, finish_reason, events }) {
  yield { begun: events };
  yield { result: { ...settings, finish_reason } };
}
