// npm's asterisk-audiosocket.
//
//     server.mjs echo PORT
//     server.mjs play PORT CLIP      CLIP: headerless 16-bit samples at 8 kHz
import { readFileSync } from "node:fs";
import { AudioSocketServer } from "asterisk-audiosocket";

const [mode, port, path] = process.argv.slice(2);
const clip = mode === "play" ? readFileSync(path) : null;

async function playForever(call, signal) {
  while (!signal.over) await call.play(clip);
}

const server = new AudioSocketServer({ port: Number(port) });
server.on("connection", (call) => {
  const signal = { over: false };
  call.on("error", () => {});
  call.on("hangup", () => (signal.over = true));
  if (clip) call.on("id", () => playForever(call, signal));
  else call.on("audio", (pcm) => call.writeFrame(pcm));
});
await server.listen();
