// Servers of node's `ws` with protocols of their own: node ws_servers.js MODE PORT   (0: a free one)
//   echo      sends everything back            silent  takes everything, says nothing
//   strict    closes with 1008 what is not {"op":"ping"}, which it answers with {"op":"pong"}
//   no-pong   never answers a Ping; "ping" with "pong"
// Prints "listening on PORT" when it is ready, and "got OPCODE TEXT" for each message and Ping.
"use strict";

const WebSocket = require("ws");

const mode = process.argv[2];
const options = { port: Number(process.argv[3] || 0), host: "127.0.0.1", autoPong: mode !== "no-pong" };
const server = new WebSocket.Server(options, () => console.log("listening on " + server.address().port));

server.on("connection", (ws) => {
  ws.on("ping", (data) => console.log("got ping " + data));
  ws.on("message", (data, binary) => {
    console.log("got message " + data);
    if (mode === "echo") ws.send(data, { binary });
    if (mode === "no-pong" && String(data) === "ping") ws.send("pong");
    if (mode !== "strict") return;
    if (String(data) === '{"op":"ping"}') ws.send('{"op":"pong"}');
    else ws.close(1008, "unknown op");
  });
});
