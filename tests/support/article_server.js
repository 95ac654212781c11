// The server of the article, with node's `ws`: an upgrade filter, named clients, and an echo of both ModeCodes.
// Usage: node article_server.js PORT     (0: a free one)      Prints "listening on PORT" when it is ready.
"use strict";

const http = require("http");
const WebSocket = require("ws");

const pathname = "/ws/";
const clients = {};

const server = http.createServer();
const webSocketServer = new WebSocket.Server({ noServer: true });

webSocketServer.on("connection", (ws, request, name) => {
  clients[name] = ws;
  ws.on("error", () => console.log("client error " + name));
  ws.on("close", (code) => {
    if (clients[name] === ws) delete clients[name];
    console.log("client left " + name + " " + code);
  });
  ws.on("message", (data) => {
    const message = JSON.parse(data);
    switch (message.ModeCode) {
      case "message":
        ws.send(data); // a Buffer: it goes out as a binary message, as in the article
        break;
      case "heart_beat":
        console.log("heartbeat of " + name);
        ws.send(data);
        break;
    }
  });
  console.log("client joined " + name);
});

server.on("upgrade", (request, socket, head) => {
  const url = new URL(request.url, "http://" + request.headers.host);
  if (url.pathname !== pathname) {
    socket.end("HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    return;
  }
  webSocketServer.handleUpgrade(request, socket, head, (ws) => {
    webSocketServer.emit("connection", ws, request, url.searchParams.get("name"));
  });
});

server.listen(Number(process.argv[2] || 0), "127.0.0.1", () => {
  console.log("listening on " + server.address().port);
});
