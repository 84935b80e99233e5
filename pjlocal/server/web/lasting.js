/** The events of an answer over a connection that may be lost for some seconds. */

import { ask, events, isLost, json } from "./api.js";

const TRIES = 12; // tries to reconnect, two a second

/** Yield the events of an answer.  If the connection is lost, reconnect and yield the remaining events.
 *
 * turn, stopping: the turn, and the controller that stops it.
 * which: returns the number of its chat; null if the chat has none yet, or is no longer open. */
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

/** Reconnect, and return the events of the answer from its beginning.  Throws `lost` if that fails. */
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

/** Yield a saved answer as a stream of events. */
async function* saved({ settings, finish_reason, events }) {
  yield { begun: events };
  yield { result: { ...settings, finish_reason } };
}
